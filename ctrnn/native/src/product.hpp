// C += A B for a small, fixed B that many A meet: the recurrent weights, once for each step.
//
// The sum over k goes in chunks of `chunk(k)` numbers, each summed from zero in order and then added to C. That holds for
// every element in every shape of tile, so a row of C does not depend on the rows beside it.
#pragma once

#include <vector>

#include "vec.hpp"

namespace ctrnn::CTRNN_ISA {

// Tiles of ROWS x 4 vectors leave registers for one row of B and for the elements of A.
constexpr int TILE_VECTORS = 4;
constexpr int TILE_ROWS = REGISTERS == 32 ? 6 : 3;
// 128 rows of a tile's columns fill two thirds of a first-level cache of 48 KiB.
constexpr int64_t CHUNK = 128;

// At least two chunks: a single row sums two at a time, for otherwise each addition would wait for the one before it.
constexpr int64_t chunk(int64_t k) { return (k + 1) / 2 < CHUNK ? (k + 1) / 2 : CHUNK; }

// B (k, n) for `accumulate`: panels as wide as a tile, one after another, each with its rows one after another, so that a
// product reads memory in order. Columns beyond n are zero.
template <class T>
class Matrix {
public:
    static constexpr int64_t PANEL = TILE_VECTORS * Vec<T>::width;

    // From `from` of shape (k, n), or (n, k) when transposed, whose rows are contiguous.
    Matrix(const T* from, int64_t k, int64_t n, bool transposed) : k(k), n(n), values(k * padded<T>(n)) {
        const int64_t along_k = transposed ? 1 : n, along_n = transposed ? k : 1;
        for (int64_t first = 0; first < n; first += PANEL) {
            T* to = values.data() + first * k;
            const int64_t columns = n - first < PANEL ? n - first : PANEL, width = panel_width(first);
            // In squares, since one of the two matrices is read or written across its rows.
            for (int64_t top = 0; top < k; top += PANEL)
                for (int64_t j = 0; j < columns; ++j)
                    for (int64_t i = top; i < k && i < top + PANEL; ++i)
                        to[i * width + j] = from[i * along_k + (first + j) * along_n];
        }
    }

    const T* panel(int64_t first) const { return values.data() + first * k; }
    int64_t panel_width(int64_t first) const {
        return padded<T>(n) - first < PANEL ? padded<T>(n) - first : PANEL;
    }

    const int64_t k, n;

private:
    std::vector<T> values;
};

template <class T, int ROWS, int VECTORS>
inline void tile(const T* a, int64_t lda, const T* b, int64_t k, T* c, int64_t ldc) {
    using V = Vec<T>;
    typename V::type sum[ROWS][VECTORS] = {};
    for (int64_t i = 0; i < k; ++i, b += VECTORS * V::width) {
        typename V::type row[VECTORS];
        for (int v = 0; v < VECTORS; ++v) row[v] = V::load(b + v * V::width);
        for (int r = 0; r < ROWS; ++r) {
            const auto factor = V::broadcast(a[r * lda + i]);
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += factor * row[v];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) {
            T* at = c + r * ldc + v * V::width;
            V::store(at, V::load(at) + sum[r][v]);
        }
}

// Two chunks of one row at once; the second has at most as many numbers as the first.
template <class T, int VECTORS>
inline void pair(const T* a, const T* b, int64_t first, int64_t second, T* c) {
    using V = Vec<T>;
    constexpr int64_t width = VECTORS * V::width;
    typename V::type sum[VECTORS] = {}, next[VECTORS] = {};
    for (int64_t i = 0; i < second; ++i) {
        const auto factor = V::broadcast(a[i]), after = V::broadcast(a[first + i]);
        for (int v = 0; v < VECTORS; ++v) {
            sum[v] += factor * V::load(b + i * width + v * V::width);
            next[v] += after * V::load(b + (first + i) * width + v * V::width);
        }
    }
    for (int64_t i = second; i < first; ++i)
        for (int v = 0; v < VECTORS; ++v) sum[v] += V::broadcast(a[i]) * V::load(b + i * width + v * V::width);
    for (int v = 0; v < VECTORS; ++v) {
        T* at = c + v * V::width;
        V::store(at, (V::load(at) + sum[v]) + next[v]);
    }
}

template <class T, int VECTORS>
inline void single(const T* a, const T* b, int64_t k, T* c) {
    const int64_t size = chunk(k);
    for (int64_t i = 0; i < k; i += 2 * size) {
        const int64_t left = k - i - size;
        const T* at = b + i * VECTORS * Vec<T>::width;
        if (left > 0) pair<T, VECTORS>(a + i, at, size, left < size ? left : size, c);
        else tile<T, 1, VECTORS>(a + i, 0, at, k - i, c, 0);
    }
}

template <class T, int VECTORS, int ROWS>
inline void rows_of_tile(int rows, const T* a, int64_t lda, const T* b, int64_t k, T* c, int64_t ldc) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return rows_of_tile<T, VECTORS, ROWS - 1>(rows, a, lda, b, k, c, ldc);
    tile<T, ROWS, VECTORS>(a, lda, b, k, c, ldc);
}

template <class T, int VECTORS>
inline void panel(const T* a, int64_t lda, int64_t rows, const T* b, int64_t k, T* c, int64_t ldc) {
    if (rows == 1) return single<T, VECTORS>(a, b, k, c);
    const int64_t size = chunk(k), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t i = 0; i < k; i += size) {
        const int64_t part = k - i < size ? k - i : size;
        for (int64_t t = 0; t < tiles; ++t) {  // tiles of nearly equal height: a flat one makes poor use of what it loads
            const int64_t first = t * rows / tiles, last = (t + 1) * rows / tiles;
            rows_of_tile<T, VECTORS, TILE_ROWS>(int(last - first), a + first * lda + i, lda,
                                                b + i * VECTORS * Vec<T>::width, part, c + first * ldc, ldc);
        }
    }
}

// C (rows, b.n) += A (rows, b.k) B. Rows of C are padded to whole vectors, which are read and written.
template <class T>
void accumulate(const T* a, int64_t lda, int64_t rows, const Matrix<T>& b, T* c, int64_t ldc) {
    for (int64_t first = 0; first < b.n; first += Matrix<T>::PANEL) {
        const T* from = b.panel(first);
        switch (b.panel_width(first) / Vec<T>::width) {
            case 1: panel<T, 1>(a, lda, rows, from, b.k, c + first, ldc); break;
            case 2: panel<T, 2>(a, lda, rows, from, b.k, c + first, ldc); break;
            case 3: panel<T, 3>(a, lda, rows, from, b.k, c + first, ldc); break;
            default: panel<T, 4>(a, lda, rows, from, b.k, c + first, ldc);
        }
    }
}

}  // namespace ctrnn::CTRNN_ISA
