/* The kernels of rows.c by type of weights, and how they pass over the tensors of a product. */

#pragma once

#include "blocks_of_256.h"
#include "blocks_of_32.h"
#include "ggml-backend-impl.h"

#define CHUNK 32 /* outputs that a thread takes at a time */

typedef struct {
    enum ggml_type type;
    int block;         /* weights of a block */
    int outputs;       /* that `multiply` computes for each row */
    int64_t least_rows, most_rows; /* with fewer or more, ggml's own kernel is faster, or another one here */
    size_t tile_bytes; /* of the activations of TILE_ROWS rows that meet a block */
    void (*round)(const float * x, void * tile, int row);
    void (*multiply)(const void * weights, size_t row_bytes, const void * tiles, int64_t blocks, float * out, size_t out_stride, int rows);
} kernel;

static const kernel kernels[] = {
    {GGML_TYPE_Q4_1, SMALL_BLOCK, SMALL_OUTPUTS, 2, INT64_MAX, sizeof(small_tile), round_to_q8_1, multiply_q4_1},
    {GGML_TYPE_Q5_1, SMALL_BLOCK, SMALL_OUTPUTS, 2, INT64_MAX, sizeof(small_tile), round_to_q8_1, multiply_q5_1},
    {GGML_TYPE_Q4_K, LARGE_BLOCK, 1, 1, 1, sizeof(single_row), round_to_single_row, multiply_q4_k_by_one_row},
    {GGML_TYPE_Q4_K, LARGE_BLOCK, 1, 2, 15, sizeof(large_tile), round_to_q8_k, multiply_q4_k},
    {GGML_TYPE_Q5_K, LARGE_BLOCK, 1, 1, 1, sizeof(single_row), round_to_single_row, multiply_q5_k_by_one_row},
    {GGML_TYPE_Q5_K, LARGE_BLOCK, 1, 2, 15, sizeof(large_tile), round_to_q8_k, multiply_q5_k},
    {GGML_TYPE_Q6_K, LARGE_BLOCK, 1, 1, 1, sizeof(single_row), round_to_single_row, multiply_q6_k_by_one_row},
    {GGML_TYPE_Q6_K, LARGE_BLOCK, 1, 2, 63, sizeof(large_tile), round_to_q8_k, multiply_q6_k},
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

static int64_t tiles_of(const struct ggml_tensor * x) {
    return (x->ne[1] + TILE_ROWS - 1) / TILE_ROWS;
}

static void round_row(const kernel * of, const struct ggml_tensor * x, int64_t row, char * activations) {
    const int64_t blocks = x->ne[0] / of->block;
    const float * values = (const float *) ((const char *) x->data + row * x->nb[1]);
    char * tile = activations + row / TILE_ROWS * blocks * of->tile_bytes;
    for (int64_t i = 0; i < blocks; i++) {
        of->round(values + i * of->block, tile + i * of->tile_bytes, row % TILE_ROWS);
    }
}

static void multiply_chunk(const kernel * of, const struct ggml_tensor * out, const char * activations, int64_t chunk) {
    const struct ggml_tensor *weights = out->src[0], *x = out->src[1];
    const int64_t blocks = weights->ne[0] / of->block;
    const size_t out_stride = out->nb[1] / sizeof(float);
    for (int64_t tile = 0; tile < tiles_of(x); tile++) { /* it stays in a near cache while a chunk of weights passes by */
        const int64_t left = x->ne[1] - tile * TILE_ROWS;
        for (int64_t o = chunk * CHUNK; o < (chunk + 1) * CHUNK; o += of->outputs) {
            of->multiply((const char *) weights->data + o * weights->nb[1], weights->nb[1], activations + tile * blocks * of->tile_bytes, blocks,
                         (float *) out->data + tile * TILE_ROWS * out_stride + o, out_stride, left < TILE_ROWS ? (int) left : TILE_ROWS);
        }
    }
}
