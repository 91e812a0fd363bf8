/* Eight rows of activations by weights of type Q4_1 or Q5_1: `ggml_vec_dot_q4_1_q8_1` and `ggml_vec_dot_q5_1_q8_1` of
 * ggml-cpu/arch/x86/quants.c, operation by operation, for eight rows. Layouts of blocks: ggml-common.h. */

#pragma once

#include "tile.h"

#define SMALL_BLOCK 32
#define SMALL_OUTPUTS 2 /* rows of weights at once: their 16 sums stay in registers */

typedef struct { /* a weight is scale * code + offset; the low nibbles are the first 16 codes */
    uint16_t scale, offset;
    uint8_t nibbles[SMALL_BLOCK / 2];
} q4_1_block;

typedef struct { /* bit i of `fifth` belongs to code i */
    uint16_t scale, offset;
    uint8_t fifth[SMALL_BLOCK / 8], nibbles[SMALL_BLOCK / 2];
} q5_1_block;

typedef struct { /* Q8_1: one block of each row; sum: that of its rounded values */
    int8_t codes[TILE_ROWS][SMALL_BLOCK];
    float scale[TILE_ROWS], sum[TILE_ROWS];
} small_tile;

/* `quantize_row_q8_1` for one block. */
static AVX512 void round_to_q8_1(const float * x, void * tiles, int row) {
    small_tile * tile = tiles;
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const float scale = largest / 127.0f;
    const __m512 inverse = _mm512_set1_ps(largest != 0.0f ? 127.0f / largest : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)), b = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    _mm_storeu_si128((__m128i *) tile->codes[row], _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128((__m128i *) (tile->codes[row] + 16), _mm512_cvtsepi32_epi8(b));
    tile->scale[row] = rounded_to_half(scale);
    tile->sum[row] = rounded_to_half(scale * (float) _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)));
}

INLINE AVX512 __m256i codes_of_nibbles(const uint8_t * nibbles) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) nibbles));
    return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_set_epi64x(4, 4, 0, 0)), _mm256_set1_epi8(15));
}

INLINE AVX512 __m256i small_codes(const void * block, int bits) {
    if (bits == 4) {
        return codes_of_nibbles(((const q4_1_block *) block)->nibbles);
    }
    uint32_t fifth;
    memcpy(&fifth, ((const q5_1_block *) block)->fifth, sizeof fifth);
    return _mm256_or_si256(codes_of_nibbles(((const q5_1_block *) block)->nibbles), _mm256_maskz_set1_epi8(fifth, 16));
}

/* bits, rows: constants, so that the loops unroll and the sums stay in registers. */
INLINE AVX512 void multiply_small(
    int bits, int rows, const void * weights, size_t row_bytes, const small_tile * x, int64_t blocks, float * out, size_t out_stride
) {
    const size_t block_bytes = bits == 4 ? sizeof(q4_1_block) : sizeof(q5_1_block);
    __m256 sums[SMALL_OUTPUTS][TILE_ROWS], offsets[SMALL_OUTPUTS];
    for (int o = 0; o < SMALL_OUTPUTS; o++) {
        offsets[o] = _mm256_setzero_ps();
        for (int row = 0; row < rows; row++) {
            sums[o][row] = _mm256_setzero_ps();
        }
    }
    for (int64_t i = 0; i < blocks; i++) {
        float scales[SMALL_OUTPUTS][TILE_ROWS] __attribute__((aligned(32)));
        __m256i codes[SMALL_OUTPUTS];
        for (int o = 0; o < SMALL_OUTPUTS; o++) {
            const void * block = (const char *) weights + o * row_bytes + i * block_bytes;
            const q4_1_block * head = block; /* both types begin alike */
            _mm256_store_ps(scales[o], _mm256_mul_ps(_mm256_set1_ps(of_half(head->scale)), _mm256_load_ps(x[i].scale)));
            offsets[o] = _mm256_fmadd_ps(_mm256_set1_ps(of_half(head->offset)), _mm256_load_ps(x[i].sum), offsets[o]);
            codes[o] = small_codes(block, bits);
        }
        for (int row = 0; row < rows; row++) {
            const __m256i values = _mm256_load_si256((const __m256i *) x[i].codes[row]);
            for (int o = 0; o < SMALL_OUTPUTS; o++) {
                const __m256 product = _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), codes[o], values));
                sums[o][row] = _mm256_fmadd_ps(_mm256_broadcast_ss(&scales[o][row]), product, sums[o][row]);
            }
        }
    }
    for (int o = 0; o < SMALL_OUTPUTS; o++) {
        float added[TILE_ROWS] __attribute__((aligned(32)));
        _mm256_store_ps(added, offsets[o]);
        for (int row = 0; row < rows; row++) {
            out[row * out_stride + o] = sum_of_eight(sums[o][row]) + added[row];
        }
    }
}

#define MULTIPLY_SMALL(bits, rows) multiply_small(bits, rows, weights, row_bytes, x, blocks, out, out_stride)
#define MULTIPLY_SMALL_FUNCTION(name, bits) \
    static AVX512 void name(const void * weights, size_t row_bytes, const void * x, int64_t blocks, float * out, size_t out_stride, int rows) { \
        switch (rows) { \
            case 1: MULTIPLY_SMALL(bits, 1); break; \
            case 2: MULTIPLY_SMALL(bits, 2); break; \
            case 3: MULTIPLY_SMALL(bits, 3); break; \
            case 4: MULTIPLY_SMALL(bits, 4); break; \
            case 5: MULTIPLY_SMALL(bits, 5); break; \
            case 6: MULTIPLY_SMALL(bits, 6); break; \
            case 7: MULTIPLY_SMALL(bits, 7); break; \
            default: MULTIPLY_SMALL(bits, 8); \
        } \
    }

MULTIPLY_SMALL_FUNCTION(multiply_q4_1, 4)
MULTIPLY_SMALL_FUNCTION(multiply_q5_1, 5)
