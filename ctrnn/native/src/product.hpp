// C += A B for a small, fixed B that many A meet: the recurrent weights, once for each step.
//
// The sum over k goes in chunks of `chunk(k)` numbers, each summed from zero in order and then added to C. That holds
// for every element in every shape of tile, so a row of C does not depend on the rows beside it.
#pragma once

#include <type_traits>

#include "vec.hpp"

namespace ctrnn::CTRNN_ISA {

// Tiles of ROWS x 4 vectors leave registers for one row of B and for the elements of A.
constexpr int TILE_VECTORS = 4;
constexpr int TILE_ROWS = REGISTERS == 32 ? 6 : 3;
// 128 rows of a tile's columns fill two thirds of a first-level cache of 48 KiB.
constexpr int64_t CHUNK = 128;

// At least two chunks: a single row sums two at a time, for otherwise each addition would wait for the one before it.
constexpr int64_t chunk(int64_t k) { return (k + 1) / 2 < CHUNK ? (k + 1) / 2 : CHUNK; }

template <class T>
constexpr int64_t PANEL = TILE_VECTORS * Vec<T>::width;

// B (k, n) for `accumulate`: panels as wide as a tile, one after another, each with its rows one after another, so that
// a product reads memory in order. Columns beyond n are zero.
template <class T>
class Matrix {
public:
    // From `from` of shape (k, n), or (n, k) when transposed, whose rows are contiguous.
    Matrix(const T* from, int64_t k, int64_t n, bool transposed) : k(k), n(n), values(k * padded<T>(n)) {
        const int64_t along_k = transposed ? 1 : n, along_n = transposed ? k : 1;
        for (int64_t first = 0; first < n; first += PANEL<T>) {
            T* to = values.data() + first * k;
            // In squares, since one of the two matrices is read or written across its rows.
            for (int64_t top = 0; top < k; top += PANEL<T>)
                for (int64_t j = 0; j < columns(first); ++j)
                    for (int64_t i = top; i < k && i < top + PANEL<T>; ++i)
                        to[i * panel_width(first) + j] = from[i * along_k + (first + j) * along_n];
        }
    }

    const T* panel(int64_t first) const { return values.data() + first * k; }
    int64_t columns(int64_t first) const { return n - first < PANEL<T> ? n - first : PANEL<T>; }
    int64_t panel_width(int64_t first) const { return padded<T>(columns(first)); }

    const int64_t k, n;

private:
    Aligned<T> values;
};

// What a tile adds to: `columns` of each row of C, the last vector perhaps in part.
template <class T, int VECTORS>
inline void add(T* c, int64_t columns, const typename Vec<T>::type (&sum)[VECTORS]) {
    using V = Vec<T>;
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
        T* at = c + v * V::width;
        const int64_t left = v + 1 < VECTORS ? V::width : columns - v * V::width;
        V::store(at, V::load(at, left) + sum[v], left);
    }
}

// A step to the next row of A goes `lda` further, one to the next column `next`.
template <class T, int ROWS, int VECTORS>
inline void tile(const T* a, int64_t lda, int64_t next, const T* b, int64_t ldb, int64_t k, T* c, int64_t ldc,
                 int64_t columns) {
    using V = Vec<T>;
    // Unrolled early, for GCC clears, and in the end spills, a memory copy of an array whose indices it does not know yet.
    typename V::type sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = typename V::type{};
    for (int64_t i = 0; i < k; ++i, a += next, b += ldb) {
        typename V::type row[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) row[v] = V::load(b + v * V::width);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const auto factor = V::broadcast(a[r * lda]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += factor * row[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) add<T, VECTORS>(c + r * ldc, columns, sum[r]);
}

// Two chunks of one row at once; the second has at most as many numbers as the first.
template <class T, int VECTORS>
inline void pair(const T* a, const T* b, int64_t ldb, int64_t first, int64_t second, T* c, int64_t columns) {
    using V = Vec<T>;
    typename V::type sum[VECTORS] = {}, next[VECTORS] = {};
    const T *after = a + first, *below = b + first * ldb;
    for (int64_t i = 0; i < second; ++i)
        for (int v = 0; v < VECTORS; ++v) {
            sum[v] += V::broadcast(a[i]) * V::load(b + i * ldb + v * V::width);
            next[v] += V::broadcast(after[i]) * V::load(below + i * ldb + v * V::width);
        }
    for (int64_t i = second; i < first; ++i)
        for (int v = 0; v < VECTORS; ++v) sum[v] += V::broadcast(a[i]) * V::load(b + i * ldb + v * V::width);
    add<T, VECTORS>(c, columns, sum);
    add<T, VECTORS>(c, columns, next);
}

template <class T, int VECTORS>
inline void single(const T* a, const T* b, int64_t ldb, int64_t k, T* c, int64_t columns) {
    const int64_t size = chunk(k);
    for (int64_t i = 0; i < k; i += 2 * size) {
        const int64_t left = k - i - size;
        if (left > 0) pair<T, VECTORS>(a + i, b + i * ldb, ldb, size, left < size ? left : size, c, columns);
        else tile<T, 1, VECTORS>(a + i, 0, 1, b + i * ldb, ldb, k - i, c, 0, columns);
    }
}

template <class T, int VECTORS, int ROWS>
inline void tile_of(int64_t rows, const T* a, int64_t lda, int64_t next, const T* b, int64_t ldb, int64_t k, T* c,
                    int64_t ldc, int64_t columns) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return tile_of<T, VECTORS, ROWS - 1>(rows, a, lda, next, b, ldb, k, c, ldc, columns);
    tile<T, ROWS, VECTORS>(a, lda, next, b, ldb, k, c, ldc, columns);
}

template <class T, int VECTORS>
void panel(const T* a, int64_t lda, int64_t rows, const T* b, int64_t ldb, int64_t k, T* c, int64_t ldc,
           int64_t columns) {
    if (rows == 1) return single<T, VECTORS>(a, b, ldb, k, c, columns);
    // Tiles of nearly equal height: a flat one makes poor use of what it loads.
    const int64_t size = chunk(k), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t i = 0; i < k; i += size)
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t first = t * rows / tiles, last = (t + 1) * rows / tiles;
            tile_of<T, VECTORS, TILE_ROWS>(last - first, a + first * lda + i, lda, 1, b + i * ldb, ldb,
                                           k - i < size ? k - i : size, c + first * ldc, ldc, columns);
        }
}

// body(number of vectors, a constant) for a panel of so many columns.
template <class T, class Body>
inline void for_width(int64_t columns, Body body) {
    switch ((columns + Vec<T>::width - 1) / Vec<T>::width) {
        case 1: return body(std::integral_constant<int, 1>());
        case 2: return body(std::integral_constant<int, 2>());
        case 3: return body(std::integral_constant<int, 3>());
        default: return body(std::integral_constant<int, TILE_VECTORS>());
    }
}

// C (rows, b.n) += A (rows, b.k) B.
template <class T>
void accumulate(const T* a, int64_t lda, int64_t rows, const Matrix<T>& b, T* c, int64_t ldc) {
    for (int64_t first = 0; first < b.n; first += PANEL<T>) {
        const int64_t columns = b.columns(first);
        for_width<T>(columns, [&](auto vectors) {
            panel<T, vectors>(a, lda, rows, b.panel(first), b.panel_width(first), b.k, c + first, ldc, columns);
        });
    }
}

// C (n, length) += A^T B, where A and B have `k` rows, `lda` and `ldb` apart, B of whole vectors: a gradient of weights.
template <class T>
void accumulate_outer(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t k, int64_t n, T* c, int64_t length) {
    for (int64_t first = 0; first < length; first += PANEL<T>) {
        const int64_t columns = length - first < PANEL<T> ? length - first : PANEL<T>;
        for_width<T>(columns, [&](auto vectors) {
            for (int64_t i = 0; i < n; i += TILE_ROWS) {
                const int64_t height = n - i < TILE_ROWS ? n - i : TILE_ROWS;
                T* to = c + i * length + first;
                // A large C is far away, and asked for only when the tile is done.
                for (int64_t row = 0; row < height; ++row)
                    for (int v = 0; v < vectors; ++v) __builtin_prefetch(to + row * length + v * Vec<T>::width, 1);
                tile_of<T, vectors, TILE_ROWS>(height, a + i, 1, lda, b + first, ldb, k, to, length, columns);
            }
        });
    }
}

}  // namespace ctrnn::CTRNN_ISA
