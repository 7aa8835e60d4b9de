// The C function of project.h. torch's product of a row depends on how many rows there are; this one does not, so that a
// run in parts, or of one sample of many, is the same run.
#include "project.h"

#include <algorithm>

#include "export.hpp"
#include "pages.hpp"
#include "product.hpp"
#include "threads.hpp"

namespace ctrnn::CTRNN_ISA {
namespace {

constexpr int64_t BLOCK = 48;  // rows whose results stay in a first-level cache from one chunk of k to the next
constexpr double SHARE = 1e6;  // multiplications that are worth starting a thread for

template <class T>
void project(const ctrnn_project_run& run) {
    if (run.rows == 0 || run.n == 0) return;
    const T *u = static_cast<const T*>(run.u), *b = static_cast<const T*>(run.b);
    T* v = static_cast<T*>(run.v);
    in_large_pages<T>(v, run.rows * run.n);
    const Matrix<T> W(static_cast<const T*>(run.W), run.k, run.n, true);
    const int64_t blocks = (run.rows + BLOCK - 1) / BLOCK;
    const double work = double(run.rows) * run.n * (run.k + 8);
    parallel(blocks, int(std::min<double>(run.threads, 1 + work / SHARE)), [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) {
            const int64_t begin = block * BLOCK, rows = std::min(BLOCK, run.rows - begin);
            T* to = v + begin * run.n;
            for (int64_t row = 0; row < rows; ++row) {
                if (b) std::copy_n(b, run.n, to + row * run.n);
                else std::fill_n(to + row * run.n, run.n, T(0));
            }
            accumulate<T>(u + begin * run.k, run.k, rows, W, to, run.n);
        }
    });
}

}  // namespace
}  // namespace ctrnn::CTRNN_ISA

CTRNN_EXPORT(project)(const ctrnn_project_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? project<double>(*run) : project<float>(*run); });
}
