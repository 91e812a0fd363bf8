/* Rows of bfloat16 times a layer of 4-bit codes, on x86-64 CPUs with AVX512_BF16.

A weight is scale * (code - zero point). What is multiplied is code - 8, which bfloat16 holds exactly, and the sums are
float32: a group adds scale * (sum of x * (code - 8) + (8 - zero point) * sum of x). An output is computed in one order,
whatever rows stand beside it and however many threads share the work: it is the same to the bit.

Outputs are in blocks of 16. Of a block, 8 inputs are 32 words of 16 bits: word 2 * o + p holds the codes of output o for
the inputs p, 2 + p, 4 + p and 6 + p, lowest bits first. So a word shifted by 4 * pair looks up a code of its own with
vpermw, and the 32 values are the pairs of inputs that vdpbf16ps multiplies. */

#include <stdint.h>

typedef uint16_t bfloat16;

/* By block of 16 outputs: codes `[blocks, inputs / 8, 64]`, scales `[blocks, groups, 16]`, middles like scales: 8 - zero
   point, NULL where all are 0. bias: `[outputs]`, or NULL. group_size, in inputs: a multiple of 8. */
struct layer {
    const uint8_t *codes;
    const bfloat16 *scales;
    const int8_t *middles;
    const bfloat16 *bias;
    int64_t inputs, outputs, group_size;
};

#ifdef __x86_64__

#include <immintrin.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* TILE_ROWS: their sums and totals, 24 registers of 32, stay in registers; 16 rows are slower. PART_BYTES: of codes that
   stay in a core's cache while all rows pass by. */
enum { BLOCK = 16, STEP = 8, STEP_BYTES = 64, PAIRS = STEP / 2, TILE_ROWS = 12, MOST_BLOCKS = 4, PART_BYTES = 1 << 18 };
enum { ASSOCIATIVITY = 8, ALIASING = 2048, GAP = 32 }; /* see with_gaps; in numbers of 2 bytes */

/* Not flags of the compiler: the library loads on every CPU, and says itself whether this one can run it. */
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define UNROLL _Pragma("GCC unroll 16")

int int4_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

INLINE __m512 widened(const bfloat16 *values) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)values));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

/* rows and blocks are constants where this is inlined: the unrolled loops leave arrays in registers. */
INLINE void tile(const int rows, const int blocks, const struct layer *layer, int64_t block, const bfloat16 *x,
                 int64_t stride, const float *sums, bfloat16 *out) {
    /* code - 8, and twice over: vpermw reads five bits of a word, of which only four are the code's */
    static const bfloat16 exact[16] = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                       0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    const __m512i values = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)exact));
    const int64_t inputs = layer->inputs, groups = inputs / layer->group_size;
    const int64_t block_bytes = inputs / STEP * STEP_BYTES;
    const uint8_t *codes = layer->codes + block * block_bytes;
    __m512 total[TILE_ROWS][MOST_BLOCKS], sum[TILE_ROWS][MOST_BLOCKS];
    UNROLL for (int b = 0; b < blocks; b++) {
        __m512 bias = layer->bias ? widened(layer->bias + (block + b) * BLOCK) : _mm512_setzero_ps();
        UNROLL for (int r = 0; r < rows; r++) total[r][b] = bias;
    }
    for (int64_t group = 0; group < groups; group++) {
        UNROLL for (int b = 0; b < blocks; b++) {
            UNROLL for (int r = 0; r < rows; r++) sum[r][b] = _mm512_setzero_ps();
            if (layer->middles) {
                const int8_t *bytes = layer->middles + ((block + b) * groups + group) * BLOCK;
                __m512 middle = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)bytes)));
                UNROLL for (int r = 0; r < rows; r++)
                    sum[r][b] = _mm512_mul_ps(middle, _mm512_set1_ps(sums[r * groups + group]));
            }
        }
        for (int64_t step = 0; step < layer->group_size / STEP; step++) {
            UNROLL for (int pair = 0; pair < PAIRS; pair++) {
                __m512i weights[MOST_BLOCKS];
                UNROLL for (int b = 0; b < blocks; b++) {
                    __m512i words = _mm512_srli_epi16(_mm512_loadu_si512(codes + b * block_bytes), 4 * pair);
                    weights[b] = _mm512_permutexvar_epi16(words, values);
                }
                UNROLL for (int r = 0; r < rows; r++) {
                    int two;
                    memcpy(&two, x + r * stride + 2 * pair, sizeof two);
                    UNROLL for (int b = 0; b < blocks; b++)
                        sum[r][b] = _mm512_dpbf16_ps(sum[r][b], (__m512bh)weights[b], (__m512bh)_mm512_set1_epi32(two));
                }
            }
            codes += STEP_BYTES;
            x += STEP;
        }
        UNROLL for (int b = 0; b < blocks; b++) {
            __m512 scale = widened(layer->scales + ((block + b) * groups + group) * BLOCK);
            UNROLL for (int r = 0; r < rows; r++) total[r][b] = _mm512_fmadd_ps(scale, sum[r][b], total[r][b]);
        }
    }
    UNROLL for (int b = 0; b < blocks; b++)
        UNROLL for (int r = 0; r < rows; r++)
            _mm256_storeu_si256((__m256i *)(out + r * layer->outputs + (block + b) * BLOCK),
                                (__m256i)_mm512_cvtneps_pbh(total[r][b]));
}

/* Few rows take several blocks at once: each vdpbf16ps waits for the last one of its sum, six cycles. */
#define CASE(rows, at_once)                                                                                            \
    case rows:                                                                                                         \
        for (; block + at_once <= end; block += at_once) tile(rows, at_once, layer, block, x, stride, sums, out);              \
        for (; block < end; block++) tile(rows, 1, layer, block, x, stride, sums, out);                                        \
        break;

TARGET static void tiles(const struct layer *layer, int64_t block, int64_t end, const bfloat16 *x, int64_t stride,
                         int rows, const float *sums, bfloat16 *out) {
    switch (rows) {
        CASE(1, 4) CASE(2, 4) CASE(3, 4) CASE(4, 4) CASE(5, 1) CASE(6, 1)
        CASE(7, 1) CASE(8, 1) CASE(9, 1) CASE(10, 1) CASE(11, 1) CASE(12, 1)
    }
}

/* sums: `[rows, groups]`, of x over each group. */
TARGET static void sum_groups(const struct layer *layer, const bfloat16 *x, int64_t rows, float *sums) {
    const __m128bh ones = (__m128bh)_mm_set1_epi16(0x3f80);
    for (int64_t group = 0; group < rows * (layer->inputs / layer->group_size); group++) {
        __m128 four = _mm_setzero_ps();
        for (int64_t step = 0; step < layer->group_size / STEP; step++, x += STEP)
            four = _mm_dpbf16_ps(four, (__m128bh)_mm_loadu_si128((const __m128i *)x), ones);
        sums[group] = four[0] + four[1] + four[2] + four[3];
    }
}

/* The outputs of a range of blocks. */
static void range(const struct layer *layer, int64_t block, int64_t end, const bfloat16 *x, int64_t stride,
                  int64_t rows, const float *sums, bfloat16 *out) {
    const int64_t groups = layer->inputs / layer->group_size, count = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t fitting = PART_BYTES / (layer->inputs / STEP * STEP_BYTES);
    const int64_t part = count == 1 ? end - block : fitting > MOST_BLOCKS ? fitting : MOST_BLOCKS;
    for (; block < end; block += part) {
        for (int64_t t = 0; t < count; t++) { /* tiles of about one height */
            const int64_t row = rows * t / count, height = rows * (t + 1) / count - row;
            tiles(layer, block, block + part < end ? block + part : end, x + row * stride, stride, (int)height,
                  sums ? sums + row * groups : NULL, out + row * layer->outputs);
        }
    }
}

/* A copy whose rows do not start at the same place of a page: a core's first cache keeps no more than 8 such lines, and
   a tile reads from 12 rows at once. NULL where there is no memory, and none is needed. */
static bfloat16 *with_gaps(const bfloat16 *x, int64_t rows, int64_t inputs) {
    bfloat16 *copy = malloc((size_t)(rows * (inputs + GAP)) * sizeof *copy);
    for (int64_t row = 0; copy && row < rows; row++)
        memcpy(copy + row * (inputs + GAP), x + row * inputs, (size_t)inputs * sizeof *copy);
    return copy;
}

/* x: `[rows, inputs]`; out: `[rows, outputs]`. Returns 0, or 1 where there is no memory for the sums of groups. */
int int4_matmul(const struct layer *layer, const bfloat16 *x, int64_t rows, bfloat16 *out, int threads) {
    const int64_t blocks = layer->outputs / BLOCK;
    float *sums = NULL;
    if (layer->middles) {
        sums = malloc((size_t)(rows * (layer->inputs / layer->group_size)) * sizeof *sums);
        if (!sums) return 1;
        sum_groups(layer, x, rows, sums);
    }
    int64_t stride = layer->inputs;
    bfloat16 *apart = rows > ASSOCIATIVITY && stride % ALIASING == 0 ? with_gaps(x, rows, stride) : NULL;
    if (apart) {
        x = apart;
        stride += GAP;
    }
#pragma omp parallel num_threads(threads)
    {
        const int64_t mine = omp_get_thread_num(), all = omp_get_num_threads();
        range(layer, blocks * mine / all, blocks * (mine + 1) / all, x, stride, rows, sums, out);
    }
    free(apart);
    free(sums);
    return 0;
}

#else

int int4_supported(void) { return 0; }

#endif
