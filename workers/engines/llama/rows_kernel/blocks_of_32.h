/* Several rows of activations by weights of type Q4_1, Q5_0, Q5_1 or Q8_0: `ggml_vec_dot_q8_0_q8_0` and its like in
 * ggml-cpu/arch/x86/quants.c. Layouts of blocks: ggml-common.h.
 *
 * ggml's register has eight sums of one output: sum k adds the products of codes 4 k to 4 k + 3 of every block. Here a
 * register has sum k of sixteen outputs, so that nothing is added across a register. The weights are put into that order once for all
 * rows. The operations on floats are ggml's in ggml's order. */

#pragma once

#include "avx512.h"

#define SMALL_BLOCK 32
#define SMALL_SUMS 8
#define SMALL_OUTPUTS 16
#define SMALL_ROWS 3 /* at once: their 24 sums stay in registers */

typedef struct { /* a weight is scale * code + offset; the low nibbles are the first 16 codes */
    uint16_t scale, offset;
    uint8_t nibbles[SMALL_BLOCK / 2];
} q4_1_block;

typedef struct { /* a weight is scale * (code - 16); bit i of `fifth` belongs to code i */
    uint16_t scale;
    uint8_t fifth[SMALL_BLOCK / 8], nibbles[SMALL_BLOCK / 2];
} q5_0_block;

typedef struct { /* a weight is scale * code + offset */
    uint16_t scale, offset;
    uint8_t fifth[SMALL_BLOCK / 8], nibbles[SMALL_BLOCK / 2];
} q5_1_block;

typedef struct { /* a weight is scale * code */
    uint16_t scale;
    int8_t codes[SMALL_BLOCK];
} q8_0_block;

typedef struct { /* a block of each of the outputs */
    uint8_t codes[SMALL_SUMS][SMALL_OUTPUTS][4]; /* the type's bias added */
    float scale[SMALL_OUTPUTS], offset[SMALL_OUTPUTS];
} unpacked_outputs;

typedef struct { /* Q8_0 and Q8_1: a block of each row */
    int8_t codes[SMALL_ROWS][SMALL_BLOCK];
    int32_t of_bias[SMALL_ROWS][SMALL_SUMS]; /* what the bias of the weights' codes adds to each sum, negative */
    float scale[SMALL_ROWS], sum[SMALL_ROWS]; /* sum: that of its rounded values */
} small_tile;

INLINE AVX512 float rounded_to_half(float x) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

/* `quantize_row_q8_0` and `quantize_row_q8_1` for one block. */
INLINE AVX512 void round_small(int bias, const float * x, small_tile * tile, int row) {
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const float scale = largest / 127.0f;
    const __m512 inverse = _mm512_set1_ps(largest != 0.0f ? 127.0f / largest : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)), b = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    const __m256i codes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtsepi32_epi8(a)), _mm512_cvtsepi32_epi8(b), 1);
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
    _mm256_storeu_si256((__m256i *) tile->codes[row], codes);
    _mm256_storeu_si256((__m256i *) tile->of_bias[row], _mm256_mullo_epi32(fours, _mm256_set1_epi32(-bias)));
    tile->scale[row] = rounded_to_half(scale);
    tile->sum[row] = rounded_to_half(scale * (float) _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)));
}

#define ROUND_SMALL_FUNCTION(name, bias) \
    static AVX512 void name(const float * x, void * tile, int row) { \
        round_small(bias, x, tile, row); \
    }

ROUND_SMALL_FUNCTION(round_without_bias, 0)
ROUND_SMALL_FUNCTION(round_for_bias_of_16, 16)
ROUND_SMALL_FUNCTION(round_for_bias_of_128, 128)

INLINE AVX512 __m256i codes_of_nibbles(const uint8_t * nibbles) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) nibbles));
    return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_set_epi64x(4, 4, 0, 0)), _mm256_set1_epi8(15));
}

INLINE AVX512 __m256i codes_with_fifth_bits(const uint8_t * nibbles, const uint8_t * fifth) {
    uint32_t bits;
    memcpy(&bits, fifth, sizeof bits);
    return _mm256_or_si256(codes_of_nibbles(nibbles), _mm256_maskz_set1_epi8(bits, 16));
}

INLINE AVX512 __m256i codes_of_q4_1(const void * block) {
    return codes_of_nibbles(((const q4_1_block *) block)->nibbles);
}

INLINE AVX512 __m256i codes_of_q5_0(const void * block) {
    return codes_with_fifth_bits(((const q5_0_block *) block)->nibbles, ((const q5_0_block *) block)->fifth);
}

INLINE AVX512 __m256i codes_of_q5_1(const void * block) {
    return codes_with_fifth_bits(((const q5_1_block *) block)->nibbles, ((const q5_1_block *) block)->fifth);
}

INLINE AVX512 __m256i codes_of_q8_0(const void * block) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *) ((const q8_0_block *) block)->codes), _mm256_set1_epi8((char) 128));
}

/* Eight columns of 32 bits to registers, in each half of 256 bits. */
INLINE AVX512 void transpose(__m512i x[SMALL_SUMS]) {
    __m512i two[SMALL_SUMS], four[SMALL_SUMS];
    for (int i = 0; i < SMALL_SUMS; i += 2) {
        two[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        two[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < SMALL_SUMS; i += 4) {
        four[i] = _mm512_unpacklo_epi64(two[i], two[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(two[i], two[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(two[i + 1], two[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(two[i + 1], two[i + 3]);
    }
    const __m512i lower = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), upper = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < SMALL_SUMS / 2; i++) {
        x[i] = _mm512_permutex2var_epi64(four[i], lower, four[i + 4]);
        x[i + 4] = _mm512_permutex2var_epi64(four[i], upper, four[i + 4]);
    }
}

INLINE AVX512 void unpack_small(
    size_t block_bytes, __m256i (*codes_of)(const void *), const void * weights, size_t row_bytes, int64_t blocks, unpacked_outputs * to
) {
    for (int64_t i = 0; i < blocks; i++, to++) {
        const char * block = (const char *) weights + i * block_bytes;
        __m512i codes[SMALL_SUMS];
        uint16_t scales[SMALL_OUTPUTS], offsets[SMALL_OUTPUTS]; /* of types without an offset: nothing of meaning, and not used */
        for (int o = 0; o < SMALL_SUMS; o++) {
            const __m256i lower = codes_of(block + o * row_bytes), upper = codes_of(block + (o + SMALL_SUMS) * row_bytes);
            codes[o] = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
        }
        for (int o = 0; o < SMALL_OUTPUTS; o++) {
            memcpy(scales + o, block + o * row_bytes, sizeof *scales);
            memcpy(offsets + o, block + o * row_bytes + sizeof *scales, sizeof *offsets);
        }
        transpose(codes);
        for (int k = 0; k < SMALL_SUMS; k++) {
            _mm512_store_si512(to->codes[k], codes[k]);
        }
        _mm512_store_ps(to->scale, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) scales)));
        _mm512_store_ps(to->offset, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) offsets)));
    }
}

#define UNPACK_SMALL_FUNCTION(type) \
    static AVX512 void unpack_##type(const void * weights, size_t row_bytes, int64_t blocks, void * to) { \
        unpack_small(sizeof(type##_block), codes_of_##type, weights, row_bytes, blocks, to); \
    }

UNPACK_SMALL_FUNCTION(q4_1)
UNPACK_SMALL_FUNCTION(q5_0)
UNPACK_SMALL_FUNCTION(q5_1)
UNPACK_SMALL_FUNCTION(q8_0)

/* has_offset, rows: constants, so that the loops unroll and the sums stay in registers. A type has an offset or a bias. */
INLINE AVX512 void multiply_small(
    bool has_offset, int rows, const unpacked_outputs * weights, const small_tile * x, int64_t blocks, float * out, size_t out_stride
) {
    __m512 sums[SMALL_ROWS][SMALL_SUMS], offsets[SMALL_ROWS];
    for (int row = 0; row < rows; row++) {
        offsets[row] = _mm512_setzero_ps();
        for (int k = 0; k < SMALL_SUMS; k++) {
            sums[row][k] = _mm512_setzero_ps();
        }
    }
    for (int64_t i = 0; i < blocks; i++, weights++, x++) {
        __m512 scales[SMALL_ROWS];
        for (int row = 0; row < rows; row++) {
            scales[row] = _mm512_mul_ps(_mm512_load_ps(weights->scale), _mm512_set1_ps(x->scale[row]));
            if (has_offset) {
                offsets[row] = _mm512_fmadd_ps(_mm512_load_ps(weights->offset), _mm512_set1_ps(x->sum[row]), offsets[row]);
            }
        }
        #pragma GCC unroll 8
        for (int k = 0; k < SMALL_SUMS; k++) {
            const __m512i codes = _mm512_load_si512(weights->codes[k]);
            for (int row = 0; row < rows; row++) {
                int four;
                memcpy(&four, x->codes[row] + 4 * k, sizeof four);
                const __m512i start = has_offset ? _mm512_setzero_si512() : _mm512_set1_epi32(x->of_bias[row][k]);
                const __m512 product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, codes, _mm512_set1_epi32(four)));
                sums[row][k] = _mm512_fmadd_ps(scales[row], product, sums[row][k]);
            }
        }
    }
    for (int row = 0; row < rows; row++) { /* in the order of `hsum_float_8` of ggml */
        __m512 four[4];
        for (int k = 0; k < 4; k++) {
            four[k] = _mm512_add_ps(sums[row][k + 4], sums[row][k]);
        }
        const __m512 all = _mm512_add_ps(_mm512_add_ps(four[0], four[2]), _mm512_add_ps(four[1], four[3]));
        _mm512_storeu_ps(out + row * out_stride, has_offset ? _mm512_add_ps(all, offsets[row]) : all);
    }
}

#define MULTIPLY_SMALL_FUNCTION(name, has_offset) \
    static AVX512 void name(const void * weights, size_t row_bytes, const void * x, int64_t blocks, float * out, size_t out_stride, int rows) { \
        (void) row_bytes; \
        switch (rows) { \
            case 1: multiply_small(has_offset, 1, weights, x, blocks, out, out_stride); break; \
            case 2: multiply_small(has_offset, 2, weights, x, blocks, out, out_stride); break; \
            default: multiply_small(has_offset, SMALL_ROWS, weights, x, blocks, out, out_stride); \
        } \
    }

MULTIPLY_SMALL_FUNCTION(multiply_with_bias, false)
MULTIPLY_SMALL_FUNCTION(multiply_with_offset, true)
