/* A module of ggml (loaded like its BLAS) that multiplies several rows of activations by weights of type Q4_1 at once.
 *
 * ggml has kernels of several rows for other types; for Q4_1 it unpacks every weight again for every row. This one unpacks it once
 * for four rows, and computes what ggml's x86 kernel computes, operation by operation in the same order, so that its results are the
 * same bits: activations in blocks of 32 rounded to 8 bits (Q8_1), eight sums of a fused multiply-add per block, the weights'
 * offsets in a ninth. docs/decisions/0026; block layouts: ggml-common.h of llama.cpp. Needs AVX-512 with VNNI. */

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 32       /* values of a block */
#define TILE_ROWS 4    /* of activations */
#define TILE_OUTPUTS 4 /* of weights */
#define CHUNK 32       /* outputs that a thread takes at a time */
#define NEAR_TILES 16  /* of activations, which stay in the first cache while a chunk of weights passes by */

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

typedef struct {
    int threads;
    activation_block * activations;
    size_t bytes;
} context;

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

static AVX512 void quantize_tile(const struct ggml_tensor * x, int64_t tile, activation_block * blocks) {
    for (int row = 0; row < TILE_ROWS && tile * TILE_ROWS + row < x->ne[1]; row++) {
        const float * values = (const float *) ((const char *) x->data + (tile * TILE_ROWS + row) * x->nb[1]);
        for (int64_t i = 0; i < x->ne[0] / BLOCK; i++) {
            quantize(values + i * BLOCK, &blocks[i], row);
        }
    }
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

static int64_t tiles_of(const struct ggml_tensor * x) {
    return (x->ne[1] + TILE_ROWS - 1) / TILE_ROWS;
}

static void multiply_chunk(const struct ggml_tensor * out, const activation_block * activations, int64_t chunk) {
    const struct ggml_tensor *weights = out->src[0], *x = out->src[1];
    const int64_t blocks = weights->ne[0] / BLOCK, tiles = tiles_of(x);
    const size_t stride = weights->nb[1] / sizeof(weight_block), out_stride = out->nb[1] / sizeof(float);
    for (int64_t near = 0; near < tiles; near += NEAR_TILES) {
        for (int64_t o = chunk * CHUNK; o < (chunk + 1) * CHUNK; o += TILE_OUTPUTS) {
            for (int64_t tile = near; tile < tiles && tile < near + NEAR_TILES; tile++) {
                multiply((const weight_block *) weights->data + o * stride, stride, activations + tile * blocks, blocks,
                         (float *) out->data + tile * TILE_ROWS * out_stride + o, out_stride, x->ne[1] - tile * TILE_ROWS);
            }
        }
    }
}

static bool is_product(const struct ggml_tensor * node) {
    return node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE);
}

static enum ggml_status compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    context * own = backend->context;
    const int nodes = ggml_graph_n_nodes(graph);
    size_t bytes = 0;
    for (int i = 0; i < nodes; i++) {
        const struct ggml_tensor * node = ggml_graph_node(graph, i);
        if (is_product(node)) {
            const size_t of_node = tiles_of(node->src[1]) * (node->src[1]->ne[0] / BLOCK) * sizeof(activation_block);
            bytes = of_node > bytes ? of_node : bytes;
        }
    }
    if (bytes > own->bytes) {
        free(own->activations);
        own->activations = malloc(bytes);
        own->bytes = own->activations ? bytes : 0;
        if (!own->activations) {
            return GGML_STATUS_ALLOC_FAILED;
        }
    }
    /* The thread that calls also runs ggml's own loops, so this is the same pool of OpenMP's threads. */
    #pragma omp parallel num_threads(own->threads)
    {
        const struct ggml_tensor * held = NULL; /* q, k and v have one input */
        for (int i = 0; i < nodes; i++) {
            const struct ggml_tensor * node = ggml_graph_node(graph, i);
            if (!is_product(node)) {
                continue;
            }
            if (node->src[1] != held) {
                held = node->src[1];
                #pragma omp for schedule(static)
                for (int64_t tile = 0; tile < tiles_of(held); tile++) {
                    quantize_tile(held, tile, own->activations + tile * (held->ne[0] / BLOCK));
                }
            }
            #pragma omp for schedule(dynamic)
            for (int64_t chunk = 0; chunk < node->src[0]->ne[1] / CHUNK; chunk++) {
                multiply_chunk(node, own->activations, chunk);
            }
        }
    }
    return GGML_STATUS_SUCCESS;
}

static bool supports(ggml_backend_dev_t device, const struct ggml_tensor * op) {
    (void) device;
    const struct ggml_tensor *weights = op->src[0], *x = op->src[1];
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        case GGML_OP_MUL_MAT: /* one row is ggml's: there is nothing to share */
            return weights->type == GGML_TYPE_Q4_1 && x->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 && x->ne[1] > 1
                && ggml_is_matrix(weights) && ggml_is_matrix(x) && ggml_is_contiguous(weights) && ggml_is_contiguous(op)
                && x->nb[0] == sizeof(float) && weights->ne[1] % CHUNK == 0;
        default:
            return false;
    }
}

/* --- what ggml asks of a module -------------------------------------------------------------------------------------- */

static const char * name_of_backend(ggml_backend_t backend) {
    (void) backend;
    return "rows";
}

static void free_backend(ggml_backend_t backend) {
    context * own = backend->context;
    free(own->activations);
    free(own);
    free(backend);
}

static void set_threads(ggml_backend_t backend, int threads) {
    ((context *) backend->context)->threads = threads;
}

static const char * name_of_device(ggml_backend_dev_t device) {
    (void) device;
    return "rows";
}

static void memory_of_device(ggml_backend_dev_t device, size_t * free_bytes, size_t * total) {
    (void) device;
    *free_bytes = *total = 0;
}

static enum ggml_backend_dev_type type_of_device(ggml_backend_dev_t device) {
    (void) device;
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static void props_of_device(ggml_backend_dev_t device, struct ggml_backend_dev_props * props) {
    memset(props, 0, sizeof *props);
    props->name = props->description = name_of_device(device);
    props->type = type_of_device(device);
    props->caps.buffer_from_host_ptr = props->caps.mmap_support = true;
}

static ggml_backend_t make_backend(ggml_backend_dev_t device, const char * params) {
    (void) params;
    static ggml_guid guid = {0x8f, 0x1b, 0x60, 0x3e, 0x2a, 0xd4, 0x4c, 0x07, 0xb1, 0x9d, 0x55, 0xe2, 0x70, 0x6c, 0x3f, 0x92};
    ggml_backend_t backend = calloc(1, sizeof *backend);
    context * own = calloc(1, sizeof *own);
    if (!backend || !own) {
        free(backend);
        free(own);
        return NULL;
    }
    own->threads = 1;
    backend->guid = &guid;
    backend->device = device;
    backend->context = own;
    backend->iface.get_name = name_of_backend;
    backend->iface.free = free_backend;
    backend->iface.graph_compute = compute;
    return backend;
}

static ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t device) {
    (void) device;
    return ggml_backend_cpu_buffer_type();
}

static ggml_backend_buffer_t buffer_from(ggml_backend_dev_t device, void * data, size_t bytes, size_t largest_tensor) {
    (void) device;
    (void) largest_tensor;
    return ggml_backend_cpu_buffer_from_ptr(data, bytes);
}

static bool supports_buffer(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
    (void) device;
    return ggml_backend_buft_is_host(type);
}

static const char * name_of_module(ggml_backend_reg_t module) {
    (void) module;
    return "rows";
}

static size_t device_count(ggml_backend_reg_t module) {
    (void) module;
    return 1;
}

static struct ggml_backend_device the_device = {
    .iface = {
        .get_name = name_of_device,
        .get_description = name_of_device,
        .get_memory = memory_of_device,
        .get_type = type_of_device,
        .get_props = props_of_device,
        .init_backend = make_backend,
        .get_buffer_type = buffer_type,
        .buffer_from_host_ptr = buffer_from,
        .supports_op = supports,
        .supports_buft = supports_buffer,
    },
};

static ggml_backend_dev_t device_at(ggml_backend_reg_t module, size_t index) {
    (void) index;
    the_device.reg = module;
    return &the_device;
}

static void * function_of(ggml_backend_reg_t module, const char * name) {
    (void) module;
    return strcmp(name, "ggml_backend_set_n_threads") == 0 ? (void *) set_threads : NULL;
}

GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void) {
    static struct ggml_backend_reg module = {
        .api_version = GGML_BACKEND_API_VERSION,
        .iface = {
            .get_name = name_of_module,
            .get_device_count = device_count,
            .get_device = device_at,
            .get_proc_address = function_of,
        },
    };
    return &module;
}

/* Whether this CPU has the instructions. */
GGML_BACKEND_API int rows_supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* The product of random weights and activations, ggml's by its backend `cpu`, and this module's: how many of the results
 * differ in any bit; -1 without memory. inputs: a multiple of 32, as outputs. */
GGML_BACKEND_API int64_t rows_that_differ(ggml_backend_t cpu, int64_t inputs, int64_t outputs, int64_t rows, int threads) {
    int64_t differing = -1;
    struct ggml_context * tensors = ggml_init((struct ggml_init_params) { 16 * ggml_tensor_overhead() + ggml_graph_overhead(), NULL, true });
    struct ggml_tensor * weights = ggml_new_tensor_2d(tensors, GGML_TYPE_Q4_1, inputs, outputs);
    struct ggml_tensor * x = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, inputs, rows);
    struct ggml_tensor * out = ggml_mul_mat(tensors, weights, x);
    struct ggml_cgraph * graph = ggml_new_graph(tensors);
    ggml_build_forward_expand(graph, out);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(tensors, ggml_backend_cpu_buffer_type());
    ggml_backend_t backend = make_backend(&the_device, NULL);
    const int64_t largest = outputs > rows ? outputs : rows;
    float * values = malloc(inputs * largest * sizeof(float));
    float * expected = malloc(ggml_nbytes(out));
    if (buffer && backend && values && expected) {
        uint32_t random = 1;
        for (int64_t i = 0; i < inputs * largest; i++) {
            random = random * 1664525u + 1013904223u;
            values[i] = ((float) (random >> 8) / (1 << 23) - 1.0f) * (1 + i % 7);
        }
        ggml_quantize_chunk(GGML_TYPE_Q4_1, values, weights->data, 0, outputs, inputs, NULL);
        memcpy(x->data, values, ggml_nbytes(x));
        memset(x->data, 0, BLOCK * sizeof(float)); /* a block of zeros has no scale */
        set_threads(backend, threads);
        if (ggml_backend_graph_compute(cpu, graph) == GGML_STATUS_SUCCESS) {
            memcpy(expected, out->data, ggml_nbytes(out));
            memset(out->data, 0xff, ggml_nbytes(out));
            if (compute(backend, graph) == GGML_STATUS_SUCCESS) {
                differing = 0;
                for (int64_t i = 0; i < ggml_nelements(out); i++) {
                    differing += memcmp((float *) out->data + i, expected + i, sizeof(float)) != 0;
                }
            }
        }
    }
    free(values);
    free(expected);
    if (backend) {
        free_backend(backend);
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(tensors);
    return differing;
}
