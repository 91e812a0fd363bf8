/* The kernels of rows.c by type of weights, and how they pass over the tensors of a product. */

#pragma once

#include "blocks_of_256.h"
#include "blocks_of_32.h"
#include "ggml-backend-impl.h"

#define CHUNK 32 /* outputs that a thread takes at a time */

typedef struct {
    enum ggml_type type;
    int block; /* weights of a block */
    int outputs, rows; /* that `multiply` computes at once; there may be fewer rows. They are a tile */
    int64_t least_rows, most_rows; /* with fewer or more, ggml's own kernel is faster, or another one here */
    size_t tile_bytes; /* of the activations of a tile that meet a block */
    size_t unpacked_bytes; /* of a block of each of the outputs */
    void (*round)(const float * x, void * tile, int row);
    void (*unpack)(const void * weights, size_t row_bytes, int64_t blocks, void * to); /* NULL: `multiply` takes weights as they are */
    void (*multiply)(const void * weights, size_t row_bytes, const void * tiles, int64_t blocks, float * out, size_t out_stride, int rows);
} kernel;

static const kernel kernels[] = {
    {GGML_TYPE_Q8_0, SMALL_BLOCK, SMALL_OUTPUTS, SMALL_ROWS, 5, INT64_MAX, sizeof(small_tile), sizeof(unpacked_outputs), round_for_bias_of_128, unpack_q8_0, multiply_with_bias},
    {GGML_TYPE_Q5_0, SMALL_BLOCK, SMALL_OUTPUTS, SMALL_ROWS, 5, INT64_MAX, sizeof(small_tile), sizeof(unpacked_outputs), round_for_bias_of_16, unpack_q5_0, multiply_with_bias},
    {GGML_TYPE_Q4_1, SMALL_BLOCK, SMALL_OUTPUTS, SMALL_ROWS, 2, INT64_MAX, sizeof(small_tile), sizeof(unpacked_outputs), round_without_bias, unpack_q4_1, multiply_with_offset},
    {GGML_TYPE_Q5_1, SMALL_BLOCK, SMALL_OUTPUTS, SMALL_ROWS, 2, INT64_MAX, sizeof(small_tile), sizeof(unpacked_outputs), round_without_bias, unpack_q5_1, multiply_with_offset},
    {GGML_TYPE_Q4_K, LARGE_BLOCK, 1, 1, 1, 1, sizeof(single_row), 0, round_to_single_row, NULL, multiply_q4_k_by_one_row},
    {GGML_TYPE_Q4_K, LARGE_BLOCK, 1, LARGE_ROWS, 2, 15, sizeof(large_tile), 0, round_to_q8_k, NULL, multiply_q4_k},
    {GGML_TYPE_Q5_K, LARGE_BLOCK, 1, 1, 1, 1, sizeof(single_row), 0, round_to_single_row, NULL, multiply_q5_k_by_one_row},
    {GGML_TYPE_Q5_K, LARGE_BLOCK, 1, LARGE_ROWS, 2, 15, sizeof(large_tile), 0, round_to_q8_k, NULL, multiply_q5_k},
    {GGML_TYPE_Q6_K, LARGE_BLOCK, 1, 1, 1, 1, sizeof(single_row), 0, round_to_single_row, NULL, multiply_q6_k_by_one_row},
    {GGML_TYPE_Q6_K, LARGE_BLOCK, 1, LARGE_ROWS, 2, 63, sizeof(large_tile), 0, round_to_q8_k, NULL, multiply_q6_k},
};
#define KERNELS ((int) (sizeof kernels / sizeof *kernels))

static bool unused[KERNELS]; /* what `rows_leave_out` was called for */

static const kernel * kernel_of(enum ggml_type type, int64_t rows) {
    for (int i = 0; i < KERNELS; i++) {
        if (kernels[i].type == type && kernels[i].least_rows <= rows && rows <= kernels[i].most_rows && !unused[i]) {
            return kernels + i;
        }
    }
    return NULL;
}

static int64_t tiles_of(const kernel * of, const struct ggml_tensor * x) {
    return (x->ne[1] + of->rows - 1) / of->rows;
}

static void round_row(const kernel * of, const struct ggml_tensor * x, int64_t row, char * activations) {
    const int64_t blocks = x->ne[0] / of->block;
    const float * values = (const float *) ((const char *) x->data + row * x->nb[1]);
    char * tile = activations + row / of->rows * blocks * of->tile_bytes;
    for (int64_t i = 0; i < blocks; i++) {
        of->round(values + i * of->block, tile + i * of->tile_bytes, row % of->rows);
    }
}

/* unpacked: of this thread. */
static void multiply_chunk(const kernel * of, const struct ggml_tensor * out, const char * activations, char * unpacked, int64_t chunk) {
    const struct ggml_tensor *weights = out->src[0], *x = out->src[1];
    const int64_t blocks = weights->ne[0] / of->block;
    const size_t out_stride = out->nb[1] / sizeof(float);
    const int64_t at_once = of->unpack ? of->outputs : CHUNK; /* unpacked weights stay in a near cache while all rows pass by, */
    for (int64_t first = chunk * CHUNK; first < (chunk + 1) * CHUNK; first += at_once) {
        const char * packed = (const char *) weights->data + first * weights->nb[1];
        if (of->unpack) {
            of->unpack(packed, weights->nb[1], blocks, unpacked);
        }
        for (int64_t tile = 0; tile < tiles_of(of, x); tile++) { /* or a tile does, while a chunk of weights passes by */
            const int64_t left = x->ne[1] - tile * of->rows;
            for (int64_t o = 0; o < at_once; o += of->outputs) {
                of->multiply(of->unpack ? unpacked : packed + o * weights->nb[1], weights->nb[1], activations + tile * blocks * of->tile_bytes,
                             blocks, (float *) out->data + tile * of->rows * out_stride + first + o, out_stride, left < of->rows ? (int) left : of->rows);
            }
        }
    }
}
