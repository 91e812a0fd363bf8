/* Eight rows of activations, or one, by weights of type Q4_K, Q5_K or Q6_K: `ggml_vec_dot_q4_K_q8_K`, `..._q5_K_q8_K` and
 * `..._q6_K_q8_K` of ggml-cpu/arch/x86/quants.c. Layouts of blocks: ggml-common.h.
 *
 * A block has eight pieces of 32 codes. ggml multiplies 4 codes of a piece by 4 activations for each of 8 sums, multiplies each sum
 * by its scale, and adds the pieces: integers, for which the order does not matter. Here pieces p and p + 2 of each half
 * of a block share their registers, 16 bits of each in turn, so that one instruction multiplies the sums of both by their scales.
 * Codes of weights and of activations are put into that order once, when they are unpacked and rounded. The operations on
 * floats are ggml's in ggml's order: one fused multiply-add per block and sum, and its way for the minima of each type. */

#pragma once

#include "avx512.h"

#define LARGE_BLOCK 256
#define LARGE_ROWS 8 /* rows of activations that meet a block of weights while it is unpacked: one register of scales */
#define PIECES 8
#define AHEAD 4096 /* bytes that are read ahead */
#define GROUPS 16 /* of 16 codes: Q6_K has a scale for each, Q4_K and Q5_K for each piece */

typedef struct { /* a weight is scale * group's scale * code - minimum * piece's minimum */
    uint16_t scale, minimum;
    uint8_t scales[12]; /* eight scales and eight minima of 6 bits */
    uint8_t nibbles[LARGE_BLOCK / 2]; /* of two pieces: the low ones, the high ones */
} q4_k_block;

typedef struct { /* bit p of `fifth[i]` belongs to code i of piece p */
    uint16_t scale, minimum;
    uint8_t scales[12], fifth[LARGE_BLOCK / 8], nibbles[LARGE_BLOCK / 2];
} q5_k_block;

typedef struct { /* a weight is scale * group's scale * (code - 32); upper: two bits of each piece of a half */
    uint8_t nibbles[LARGE_BLOCK / 2], upper[LARGE_BLOCK / 4];
    int8_t scales[GROUPS];
    uint16_t scale;
} q6_k_block;

typedef struct { /* Q8_K: one block of each row; sums: of groups, and of pieces by twos, those of all rows together */
    int8_t codes[LARGE_ROWS][LARGE_BLOCK];
    int16_t group_sums[LARGE_ROWS][GROUPS], piece_sums[PIECES / 2][LARGE_ROWS][2];
    float scale[LARGE_ROWS], unused[LARGE_ROWS];
} large_tile;

typedef struct { /* Q8_K, a block of one row */
    int8_t codes[LARGE_BLOCK];
    int16_t group_sums[GROUPS], piece_sums[PIECES];
    float scale, unused[3]; /* a multiple of 64 bytes */
} single_row;

typedef struct {
    __m256i codes[PIECES], scales[PIECES / 2]; /* in the order of `interleave` */
    __m256i less; /* Q6_K: what to multiply the groups' sums by, for the 32 */
    __m256i minima; /* Q4_K, Q5_K */
    float scale, minimum;
} unpacked_block;

/* `hsum_float_8` of ggml. */
INLINE AVX512 float sum_of_eight(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

INLINE AVX512 float of_half(uint16_t half) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

/* Pieces a and b: the lower 16 bits of each 32, then the upper ones. */
INLINE AVX512 void interleave(__m256i a, __m256i b, __m256i * lower, __m256i * upper) {
    *lower = _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
    *upper = _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
}

INLINE AVX512 void interleave_half(const __m256i pieces[PIECES / 2], __m256i * codes) {
    interleave(pieces[0], pieces[2], &codes[0], &codes[1]);
    interleave(pieces[1], pieces[3], &codes[2], &codes[3]);
}

/* The value that is farthest from 0, the first of these. */
INLINE AVX512 float farthest(const float * x) {
    __m512 largest = _mm512_setzero_ps();
    for (int i = 0; i < LARGE_BLOCK; i += 16) {
        largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    }
    const __m512 bound = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    for (int i = 0; i < LARGE_BLOCK; i += 16) {
        const __mmask16 there = _mm512_cmpeq_ps_mask(_mm512_abs_ps(_mm512_loadu_ps(x + i)), bound);
        if (there) {
            return x[i + __builtin_ctz(there)];
        }
    }
    return 0;
}

/* `quantize_row_q8_K_ref` of ggml-quants.c for one block; of zeros, scale and codes are 0. Returns the scale. */
INLINE AVX512 float round_block(const float * x, int8_t codes[LARGE_BLOCK], int16_t group_sums[GROUPS]) {
    const float most = farthest(x), inverse = most != 0 ? -127.0f / most : 0;
    for (int i = 0; i < LARGE_BLOCK; i += 16) {
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_set1_ps(inverse), _mm512_loadu_ps(x + i)));
        _mm_store_si128((__m128i *) (codes + i), _mm512_cvtsepi32_epi8(rounded));
        group_sums[i / 16] = (int16_t) _mm512_reduce_add_epi32(rounded);
    }
    return most != 0 ? 1 / inverse : 0;
}

static AVX512 void round_to_single_row(const float * x, void * to, int row) {
    (void) row;
    single_row * block = to;
    block->scale = round_block(x, block->codes, block->group_sums);
    for (int piece = 0; piece < PIECES; piece++) {
        block->piece_sums[piece] = block->group_sums[2 * piece] + block->group_sums[2 * piece + 1];
    }
}

static AVX512 void round_to_q8_k(const float * x, void * tiles, int row) {
    large_tile * tile = tiles;
    int8_t codes[LARGE_BLOCK] __attribute__((aligned(32)));
    tile->scale[row] = round_block(x, codes, tile->group_sums[row]);
    for (int piece = 0; piece < PIECES; piece++) {
        tile->piece_sums[piece / 2][row][piece % 2] = tile->group_sums[row][2 * piece] + tile->group_sums[row][2 * piece + 1];
    }
    for (int half = 0; half < 2; half++) {
        interleave_half((const __m256i *) codes + 4 * half, (__m256i *) tile->codes[row] + 4 * half);
    }
}

/* Those of groups 0 and 4 for four sums, then of 1 and 5; of 2 and 6, of 3 and 7; the same for the other half. */
INLINE AVX512 void unpack_scales(__m128i of_groups, __m256i * scales) {
    const __m128i first = _mm_setr_epi8(0, 4, 0, 4, 0, 4, 0, 4, 1, 5, 1, 5, 1, 5, 1, 5);
    for (int k = 0; k < PIECES / 2; k++) {
        const __m128i order = _mm_add_epi8(first, _mm_set1_epi8((char) (8 * (k / 2) + 2 * (k % 2))));
        scales[k] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(of_groups, order));
    }
}

INLINE AVX512 void unpack_q6_k(const q6_k_block * block, unpacked_block * to) {
    const __m256i low = _mm256_set1_epi8(15), two_bits = _mm256_set1_epi8(48);
    for (int half = 0; half < 2; half++) {
        const __m256i * nibbles = (const __m256i *) block->nibbles + 2 * half;
        const __m256i a = _mm256_loadu_si256(nibbles), b = _mm256_loadu_si256(nibbles + 1);
        const __m256i upper = _mm256_loadu_si256((const __m256i *) block->upper + half);
        const __m256i pieces[PIECES / 2] = {
            _mm256_or_si256(_mm256_and_si256(a, low), _mm256_and_si256(_mm256_slli_epi16(upper, 4), two_bits)),
            _mm256_or_si256(_mm256_and_si256(b, low), _mm256_and_si256(_mm256_slli_epi16(upper, 2), two_bits)),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), low), _mm256_and_si256(upper, two_bits)),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(b, 4), low), _mm256_and_si256(_mm256_srli_epi16(upper, 2), two_bits)),
        };
        interleave_half(pieces, to->codes + 4 * half);
    }
    const __m128i scales = _mm_loadu_si128((const __m128i *) block->scales);
    unpack_scales(scales, to->scales);
    to->less = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(_mm256_cvtepi8_epi16(scales), 5));
    to->scale = of_half(block->scale);
}

/* Eight scales, eight minima: `utmp` of ggml. */
INLINE AVX512 __m128i scales_and_minima(const uint8_t of_six_bits[12]) {
    const __m128i packed = _mm_loadu_si128((const __m128i *) of_six_bits); /* codes follow */
    const __m128i lower = _mm_and_si128(_mm_srlv_epi32(_mm_shuffle_epi32(packed, 0x98), _mm_setr_epi32(0, 0, 0, 4)),
                                        _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    const __m128i upper = _mm_and_si128(_mm_srli_epi32(_mm_shuffle_epi32(packed, 0x40), 2), _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    return _mm_or_si128(lower, upper);
}

/* Q4_K has no fifth bits: NULL. */
INLINE AVX512 void unpack_q4_or_q5_k(const uint8_t scales[12], const uint8_t * all_nibbles, const uint8_t * fifth, unpacked_block * to) {
    const __m256i low = _mm256_set1_epi8(15), bit = _mm256_set1_epi8(16);
    const __m256i fifths = fifth ? _mm256_loadu_si256((const __m256i *) fifth) : _mm256_setzero_si256();
    for (int half = 0; half < 2; half++) {
        const __m256i * nibbles = (const __m256i *) all_nibbles + 2 * half;
        const __m256i a = _mm256_loadu_si256(nibbles), b = _mm256_loadu_si256(nibbles + 1);
        __m256i pieces[PIECES / 2] = {
            _mm256_and_si256(a, low), _mm256_and_si256(_mm256_srli_epi16(a, 4), low),
            _mm256_and_si256(b, low), _mm256_and_si256(_mm256_srli_epi16(b, 4), low),
        };
        for (int piece = 0; fifth && piece < PIECES / 2; piece++) {
            const __m256i of_half_block = half ? _mm256_srli_epi16(fifths, 4) : fifths;
            pieces[piece] = _mm256_or_si256(pieces[piece], _mm256_and_si256(_mm256_slli_epi16(of_half_block, 4 - piece), bit));
        }
        interleave_half(pieces, to->codes + 4 * half);
    }
    const __m128i both = scales_and_minima(scales);
    unpack_scales(_mm_unpacklo_epi8(both, both), to->scales);
    to->minima = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_srli_si128(both, 8)));
}

INLINE AVX512 void unpack(int bits, const void * weights, int64_t i, unpacked_block * to) {
    if (bits == 6) {
        unpack_q6_k((const q6_k_block *) weights + i, to);
    } else if (bits == 5) {
        const q5_k_block * block = (const q5_k_block *) weights + i;
        unpack_q4_or_q5_k(block->scales, block->nibbles, block->fifth, to);
        to->scale = of_half(block->scale), to->minimum = of_half(block->minimum);
    } else {
        const q4_k_block * block = (const q4_k_block *) weights + i;
        unpack_q4_or_q5_k(block->scales, block->nibbles, NULL, to);
        to->scale = of_half(block->scale), to->minimum = of_half(block->minimum);
    }
}

/* What the minima take from each row. Q4_K keeps four sums of floats, one for two pieces; Q5_K adds the integers first. */
INLINE AVX512 void add_minima(int bits, const unpacked_block * block, const large_tile * x, __m256 scales, __m256 * sums) {
    const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(-block->minimum), scales);
    __m256i of_pieces[PIECES / 2];
    for (int k = 0; k < PIECES / 2; k++) {
        const __m256i two = _mm256_permutevar8x32_epi32(block->minima, _mm256_set1_epi32(k));
        of_pieces[k] = _mm256_madd_epi16(two, _mm256_load_si256((const __m256i *) x->piece_sums[k]));
        if (bits == 4) {
            sums[k] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(of_pieces[k]), sums[k]);
        }
    }
    if (bits == 5) {
        const __m256i all = _mm256_add_epi32(_mm256_add_epi32(of_pieces[0], of_pieces[1]), _mm256_add_epi32(of_pieces[2], of_pieces[3]));
        sums[0] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(all), sums[0]);
    }
}

INLINE AVX512 __m256 product_of_block(int bits, const unpacked_block * block, const large_tile * x, int row) {
    const __m256i * codes = (const __m256i *) x->codes[row];
    __m256i sums = _mm256_setzero_si256();
    if (bits == 6) {
        sums = _mm256_madd_epi16(block->less, _mm256_load_si256((const __m256i *) x->group_sums[row]));
    }
    for (int k = 0; k < PIECES / 2; k++) { /* at most 4 * 63 * 127: 16 bits hold it */
        const __m256i lower = _mm256_maddubs_epi16(block->codes[2 * k], _mm256_load_si256(codes + 2 * k));
        const __m256i upper = _mm256_maddubs_epi16(block->codes[2 * k + 1], _mm256_load_si256(codes + 2 * k + 1));
        sums = _mm256_dpwssd_epi32(sums, _mm256_add_epi16(lower, upper), block->scales[k]);
    }
    return _mm256_cvtepi32_ps(sums);
}

/* bits: a constant. */
INLINE AVX512 void multiply_large(int bits, const void * weights, const large_tile * x, int64_t blocks, float * out, size_t out_stride, int rows) {
    const __mmask8 there = (__mmask8) ((1 << rows) - 1); /* a tile that is not full holds anything, and very small numbers are slow */
    __m256 sums[LARGE_ROWS], minima[PIECES / 2];
    for (int row = 0; row < LARGE_ROWS; row++) {
        sums[row] = _mm256_setzero_ps();
    }
    for (int k = 0; k < PIECES / 2; k++) {
        minima[k] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < blocks; i++) {
        unpacked_block block;
        unpack(bits, weights, i, &block);
        float scales[LARGE_ROWS] __attribute__((aligned(32)));
        const __m256 of_rows = _mm256_maskz_load_ps(there, x[i].scale);
        _mm256_store_ps(scales, _mm256_mul_ps(_mm256_set1_ps(block.scale), of_rows));
        if (bits != 6) {
            add_minima(bits, &block, x + i, of_rows, minima);
        }
        for (int row = 0; row < rows; row++) {
            sums[row] = _mm256_fmadd_ps(_mm256_broadcast_ss(scales + row), product_of_block(bits, &block, x + i, row), sums[row]);
        }
    }
    float added[LARGE_ROWS] __attribute__((aligned(32)));
    const __m256 of_all = _mm256_add_ps(_mm256_add_ps(minima[0], minima[2]), _mm256_add_ps(minima[1], minima[3]));
    _mm256_store_ps(added, bits == 4 ? of_all : minima[0]);
    for (int row = 0; row < rows; row++) {
        out[row * out_stride] = bits == 6 ? sum_of_eight(sums[row]) : sum_of_eight(sums[row]) + added[row];
    }
}

#define MULTIPLY_LARGE_FUNCTION(name, bits) \
    static AVX512 void name(const void * weights, size_t row_bytes, const void * x, int64_t blocks, float * out, size_t out_stride, int rows) { \
        (void) row_bytes; \
        multiply_large(bits, weights, x, blocks, out, out_stride, rows); \
    }

MULTIPLY_LARGE_FUNCTION(multiply_q4_k, 4)
MULTIPLY_LARGE_FUNCTION(multiply_q5_k, 5)
MULTIPLY_LARGE_FUNCTION(multiply_q6_k, 6)

/* --- one row ---------------------------------------------------------------------------------------------------------
 * Nothing is unpacked for others, and memory is the limit. A register of 512 bits holds two pieces. */

INLINE AVX512 __m512i in_halves(__m256i lower, __m256i upper) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
}

INLINE AVX512 __m512i words_in_halves(int lower, int upper) {
    return in_halves(_mm256_set1_epi16((short) lower), _mm256_set1_epi16((short) upper));
}

INLINE AVX512 __m512i twice(const void * bytes) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes));
}

/* The codes of pieces 2 * pair and 2 * pair + 1. */
INLINE AVX512 __m512i codes_of_pair(int bits, const void * weights, int pair) {
    const __m512i low = _mm512_set1_epi8(15);
    if (bits == 6) {
        const q6_k_block * block = weights;
        const __m512i nibbles = _mm512_loadu_si512(block->nibbles + 64 * (pair / 2)), upper = twice(block->upper + 32 * (pair / 2));
        const __m512i two_bits = pair % 2 ? _mm512_srlv_epi16(upper, words_in_halves(0, 2)) : _mm512_sllv_epi16(upper, words_in_halves(4, 2));
        const __m512i four_bits = pair % 2 ? _mm512_srli_epi16(nibbles, 4) : nibbles;
        return _mm512_or_si512(_mm512_and_si512(four_bits, low), _mm512_and_si512(two_bits, _mm512_set1_epi8(48)));
    }
    const uint8_t * nibbles = bits == 5 ? ((const q5_k_block *) weights)->nibbles : ((const q4_k_block *) weights)->nibbles;
    const __m512i codes = _mm512_and_si512(_mm512_srlv_epi16(twice(nibbles + 32 * pair), words_in_halves(0, 4)), low);
    if (bits == 4) {
        return codes;
    }
    const __m512i of_pieces = words_in_halves(0x0101 << 2 * pair, 0x0202 << 2 * pair);
    return _mm512_mask_add_epi8(codes, _mm512_test_epi8_mask(twice(((const q5_k_block *) weights)->fifth), of_pieces), codes, _mm512_set1_epi8(16));
}

/* Of the products of a block, the sums that ggml adds to: integers. */
INLINE AVX512 __m256i product_with_one_row(int bits, const void * weights, __m128i all_scales, const single_row * row) {
    __m512i sums = _mm512_setzero_si512();
    __m512i scales;
    if (bits == 6) {
        const __m256i less = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(_mm256_cvtepi8_epi16(all_scales), 5));
        sums = _mm512_zextsi256_si512(_mm256_madd_epi16(less, _mm256_loadu_si256((const __m256i *) row->group_sums)));
        scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(all_scales));
    } else {
        scales = _mm512_broadcast_i32x4(_mm_cvtepu8_epi16(all_scales));
    }
    const __m512i of_groups = in_halves(_mm256_inserti128_si256(_mm256_setzero_si256(), _mm_set1_epi16(1), 1),
                                        _mm256_inserti128_si256(_mm256_set1_epi16(2), _mm_set1_epi16(3), 1));
    for (int pair = 0; pair < PIECES / 2; pair++) {
        const __m512i products = _mm512_maddubs_epi16(codes_of_pair(bits, weights, pair), _mm512_load_si512(row->codes + 64 * pair));
        const __m512i of_pair = bits == 6 ? _mm512_permutexvar_epi16(_mm512_add_epi16(of_groups, _mm512_set1_epi16((short) (4 * pair))), scales)
                                          : _mm512_shuffle_epi8(scales, _mm512_add_epi8(words_in_halves(0x0100, 0x0302), _mm512_set1_epi8((char) (4 * pair))));
        sums = _mm512_dpwssd_epi32(sums, products, of_pair);
    }
    return _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
}

INLINE AVX512 __m128i two_halves(const void * bytes) {
    int both;
    memcpy(&both, bytes, sizeof both);
    return _mm_cvtsi32_si128(both);
}

/* bits: a constant. */
INLINE AVX512 void multiply_one_row(int bits, const void * weights, const single_row * row, int64_t blocks, float * out) {
    const size_t block_bytes = bits == 6 ? sizeof(q6_k_block) : bits == 5 ? sizeof(q5_k_block) : sizeof(q4_k_block);
    const char * block = weights;
    __m256 sums = _mm256_setzero_ps();
    __m128 minima = _mm_setzero_ps();
    for (int64_t i = 0; i < blocks; i++, block += block_bytes, row++) {
        for (size_t line = 0; line < block_bytes; line += 64) { /* processors do not read ahead beyond a page */
            _mm_prefetch(block + AHEAD + line, _MM_HINT_T0);
        }
        __m128i scales;
        __m128 scale;
        if (bits == 6) {
            const q6_k_block * of_six = (const q6_k_block *) block;
            scales = _mm_loadu_si128((const __m128i *) of_six->scales);
            scale = _mm_set1_ps(row->scale * of_half(of_six->scale));
        } else {
            scales = scales_and_minima(((const q4_k_block *) block)->scales); /* Q5_K begins like Q4_K */
            scale = _mm_mul_ps(_mm_cvtph_ps(two_halves(block)), _mm_set1_ps(row->scale)); /* then that of the minima */
            __m128i of_minima = _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_srli_si128(scales, 8)), _mm_loadu_si128((const __m128i *) row->piece_sums));
            if (bits == 5) {
                of_minima = _mm_hadd_epi32(of_minima, of_minima), of_minima = _mm_hadd_epi32(of_minima, of_minima);
            }
            minima = _mm_fnmadd_ps(_mm_permute_ps(scale, 0x55), _mm_cvtepi32_ps(of_minima), minima);
        }
        const __m256i of_codes = product_with_one_row(bits, block, scales, row);
        sums = _mm256_fmadd_ps(_mm256_broadcastss_ps(scale), _mm256_cvtepi32_ps(of_codes), sums);
    }
    if (bits == 4) {
        minima = _mm_add_ps(minima, _mm_movehl_ps(minima, minima));
        minima = _mm_add_ss(minima, _mm_movehdup_ps(minima));
    }
    *out = bits == 6 ? sum_of_eight(sums) : sum_of_eight(sums) + _mm_cvtss_f32(minima);
}

#define MULTIPLY_ONE_ROW_FUNCTION(name, bits) \
    static AVX512 void name(const void * weights, size_t row_bytes, const void * x, int64_t blocks, float * out, size_t out_stride, int rows) { \
        (void) row_bytes, (void) out_stride, (void) rows; \
        multiply_one_row(bits, weights, x, blocks, out); \
    }

MULTIPLY_ONE_ROW_FUNCTION(multiply_q4_k_by_one_row, 4)
MULTIPLY_ONE_ROW_FUNCTION(multiply_q5_k_by_one_row, 5)
MULTIPLY_ONE_ROW_FUNCTION(multiply_q6_k_by_one_row, 6)
