/* The arithmetic of rows.c: four rows of activations by four rows of weights of type Q4_1, with the operations of ggml's x86 kernel
 * in their order. Block layouts: ggml-common.h of llama.cpp. */

#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK 32       /* values of a block */
#define TILE_ROWS 4    /* of activations */
#define TILE_OUTPUTS 4 /* of weights */

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    uint16_t scale, offset; /* halves */
    uint8_t codes[BLOCK / 2];
} weight_block;

typedef struct { /* one block of each row of a tile */
    float scale[TILE_ROWS], sum[TILE_ROWS];
    int8_t codes[TILE_ROWS][BLOCK];
} activation_block;

INLINE AVX512 float sum_of_eight(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

INLINE AVX512 float as_half(float x) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

/* One block of one row; the sum is that of the rounded values. */
INLINE AVX512 void quantize(const float * x, activation_block * block, int row) {
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const float scale = largest / 127.0f;
    const __m512 inverse = _mm512_set1_ps(largest != 0.0f ? 127.0f / largest : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)), b = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    _mm_storeu_si128((__m128i *) block->codes[row], _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128((__m128i *) (block->codes[row] + 16), _mm512_cvtsepi32_epi8(b));
    block->scale[row] = as_half(scale);
    block->sum[row] = as_half(scale * (float) _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)));
}

/* Four halves that lie a row of weights apart, each four times. */
INLINE AVX512 __m512 each_four_times(const uint16_t * first, size_t apart) {
    const __m128i halves = _mm_set_epi16(0, 0, 0, 0, (short) first[3 * apart], (short) first[2 * apart], (short) first[apart], (short) first[0]);
    const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(_mm_cvtph_ps(halves)));
}

/* weights: four rows, `stride` blocks apart. rows: 1 to 4, a constant, so that the loops unroll and the sums stay in registers. */
INLINE AVX512 void multiply_tile(
    const weight_block * weights, size_t stride, const activation_block * x, int64_t blocks, float * out, size_t out_stride, int rows
) {
    const __m256i shifts = _mm256_set_epi64x(4, 4, 0, 0), nibbles = _mm256_set1_epi8(15);
    __m256 sums[TILE_OUTPUTS][TILE_ROWS];
    __m512 offsets = _mm512_setzero_ps();
    for (int o = 0; o < TILE_OUTPUTS; o++) {
        for (int row = 0; row < rows; row++) {
            sums[o][row] = _mm256_setzero_ps();
        }
    }
    for (int64_t i = 0; i < blocks; i++) {
        const weight_block * block = weights + i;
        const size_t apart = stride * sizeof(weight_block) / sizeof(uint16_t);
        float scales[TILE_OUTPUTS * TILE_ROWS] __attribute__((aligned(64)));
        const __m512 of_rows = _mm512_broadcast_f32x4(_mm_loadu_ps(x[i].scale));
        _mm512_store_ps(scales, _mm512_mul_ps(each_four_times(&block->scale, apart), of_rows));
        offsets = _mm512_fmadd_ps(each_four_times(&block->offset, apart), _mm512_broadcast_f32x4(_mm_loadu_ps(x[i].sum)), offsets);
        for (int o = 0; o < TILE_OUTPUTS; o++) {
            const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) block[o * stride].codes));
            const __m256i codes = _mm256_and_si256(_mm256_srlv_epi64(twice, shifts), nibbles);
            for (int row = 0; row < rows; row++) {
                const __m256i values = _mm256_loadu_si256((const __m256i *) x[i].codes[row]);
                const __m256 product = _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, values));
                sums[o][row] = _mm256_fmadd_ps(_mm256_set1_ps(scales[o * TILE_ROWS + row]), product, sums[o][row]);
            }
        }
    }
    float added[TILE_OUTPUTS * TILE_ROWS] __attribute__((aligned(64)));
    _mm512_store_ps(added, offsets);
    for (int o = 0; o < TILE_OUTPUTS; o++) {
        for (int row = 0; row < rows; row++) {
            out[row * out_stride + o] = sum_of_eight(sums[o][row]) + added[o * TILE_ROWS + row];
        }
    }
}

/* rows: those that are left; a whole tile has four. */
static AVX512 void multiply(
    const weight_block * weights, size_t stride, const activation_block * x, int64_t blocks, float * out, size_t out_stride, int64_t rows
) {
    switch (rows) {
        case 1: multiply_tile(weights, stride, x, blocks, out, out_stride, 1); break;
        case 2: multiply_tile(weights, stride, x, blocks, out, out_stride, 2); break;
        case 3: multiply_tile(weights, stride, x, blocks, out, out_stride, 3); break;
        default: multiply_tile(weights, stride, x, blocks, out, out_stride, 4);
    }
}
