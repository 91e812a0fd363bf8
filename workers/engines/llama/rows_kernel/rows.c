/* A module of ggml (loaded like its BLAS) that multiplies several rows of activations by quantized weights at once.
 *
 * ggml unpacks a weight again for every row, or for every few rows. This module unpacks it once for all rows of a step (blocks of
 * 32) or for eight (blocks of 256), and computes what ggml's x86 kernel for one row computes, operation by operation in the same
 * order, so that its results are the same bits. For one row of K types it is wider.
 * docs/decisions/0026, 0052, 0077 and 0078. Needs AVX-512 with VNNI. */

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "kernels.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 4 /* of a thread's share of the weights: it takes them one by one, as others may be faster */

typedef struct {
    int threads;
    void * activations;
    size_t bytes;
} context;

static bool is_product(const struct ggml_tensor * node) {
    return node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE);
}

static enum ggml_status compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    context * own = backend->context;
    const int nodes = ggml_graph_n_nodes(graph);
    size_t bytes = 0, unpacked_bytes = 0;
    for (int i = 0; i < nodes; i++) {
        const struct ggml_tensor * node = ggml_graph_node(graph, i);
        if (is_product(node)) {
            const kernel * of = kernel_of(node->src[0]->type, node->src[1]->ne[1]);
            const size_t of_node = tiles_of(of, node->src[1]) * (node->src[1]->ne[0] / of->block) * of->tile_bytes;
            const size_t unpacked = node->src[1]->ne[0] / of->block * of->unpacked_bytes;
            bytes = of_node > bytes ? of_node : bytes;
            unpacked_bytes = unpacked > unpacked_bytes ? unpacked : unpacked_bytes;
        }
    }
    const size_t activation_bytes = (bytes + 63) / 64 * 64;
    unpacked_bytes = (unpacked_bytes + 63) / 64 * 64;
    bytes = activation_bytes + own->threads * unpacked_bytes;
    if (bytes > own->bytes) {
        free(own->activations);
        own->activations = aligned_alloc(64, bytes);
        own->bytes = own->activations ? bytes : 0;
        if (!own->activations) {
            return GGML_STATUS_ALLOC_FAILED;
        }
    }
    /* The thread that calls also runs ggml's own loops, so this is the same pool of OpenMP's threads. */
    #pragma omp parallel num_threads(own->threads)
    {
        char * unpacked = (char *) own->activations + activation_bytes + omp_get_thread_num() * unpacked_bytes;
        const struct ggml_tensor * held = NULL; /* q, k and v have one input */
        const kernel * rounded_for = NULL;
        for (int i = 0; i < nodes; i++) {
            const struct ggml_tensor * node = ggml_graph_node(graph, i);
            if (!is_product(node)) {
                continue;
            }
            const kernel * of = kernel_of(node->src[0]->type, node->src[1]->ne[1]);
            if (node->src[1] != held || of->round != rounded_for->round) {
                held = node->src[1];
                rounded_for = of;
                #pragma omp for schedule(static)
                for (int64_t row = 0; row < held->ne[1]; row++) {
                    round_row(of, held, row, own->activations);
                }
            }
            const int64_t chunks = node->src[0]->ne[1] / CHUNK;
            /* one row: a chunk takes a few microseconds, and what is read ahead at its end is another thread's */
            const int64_t at_once = node->src[1]->ne[1] > 1 ? 1 : 1 + chunks / (PARTS * own->threads);
            #pragma omp for schedule(dynamic, at_once)
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                multiply_chunk(of, node, own->activations, unpacked, chunk);
            }
        }
    }
    return GGML_STATUS_SUCCESS;
}

static bool supports(ggml_backend_dev_t device, const struct ggml_tensor * op) {
    (void) device;
    const struct ggml_tensor *weights = op->src[0], *x = op->src[1];
    const kernel * of;
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        case GGML_OP_MUL_MAT:
            of = kernel_of(weights->type, x->ne[1]);
            return of && x->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32
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

/* The type of kernel `index`, from 0 on; -1 behind the last. */
GGML_BACKEND_API int rows_type(int index) {
    return index < KERNELS ? (int) kernels[index].type : -1;
}

/* To be called before a model is loaded: ggml's own kernel multiplies by weights of this type. */
GGML_BACKEND_API void rows_leave_out(int index) {
    unused[index] = true;
}

/* ggml's product, one row at a time, so that no kernel of several rows of its own takes part. */
static bool multiply_row_by_row(ggml_backend_t cpu, struct ggml_tensor * weights, const struct ggml_tensor * x, float * results) {
    struct ggml_context * tensors = ggml_init((struct ggml_init_params) { 16 * ggml_tensor_overhead() + ggml_graph_overhead(), NULL, true });
    struct ggml_tensor * row = ggml_new_tensor_1d(tensors, GGML_TYPE_F32, x->ne[0]);
    struct ggml_tensor * out = ggml_mul_mat(tensors, weights, row);
    struct ggml_cgraph * graph = ggml_new_graph(tensors);
    ggml_build_forward_expand(graph, out);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(tensors, ggml_backend_cpu_buffer_type());
    bool done = buffer != NULL;
    for (int64_t i = 0; done && i < x->ne[1]; i++) {
        memcpy(row->data, (const char *) x->data + i * x->nb[1], ggml_nbytes(row));
        done = ggml_backend_graph_compute(cpu, graph) == GGML_STATUS_SUCCESS;
        memcpy(results + i * weights->ne[1], out->data, ggml_nbytes(out));
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(tensors);
    return done;
}

/* The product of random weights and activations by kernel `index`, and ggml's by its backend `cpu`: how many of the results
 * differ in any bit; -1 without memory. blocks: of an output's weights. outputs: a multiple of 32. rows: the nearest number
 * that the kernel takes. */
GGML_BACKEND_API int64_t rows_that_differ(ggml_backend_t cpu, int index, int64_t blocks, int64_t outputs, int64_t rows, int threads) {
    const kernel * of = kernels + index;
    rows = rows < of->least_rows ? of->least_rows : rows > of->most_rows ? of->most_rows : rows;
    const int64_t inputs = blocks * of->block, largest = outputs > rows ? outputs : rows;
    int64_t differing = -1;
    struct ggml_context * tensors = ggml_init((struct ggml_init_params) { 16 * ggml_tensor_overhead() + ggml_graph_overhead(), NULL, true });
    struct ggml_tensor * weights = ggml_new_tensor_2d(tensors, of->type, inputs, outputs);
    struct ggml_tensor * x = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, inputs, rows);
    struct ggml_tensor * out = ggml_mul_mat(tensors, weights, x);
    struct ggml_cgraph * graph = ggml_new_graph(tensors);
    ggml_build_forward_expand(graph, out);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(tensors, ggml_backend_cpu_buffer_type());
    ggml_backend_t backend = make_backend(&the_device, NULL);
    float * values = malloc(inputs * largest * sizeof(float));
    float * expected = malloc(ggml_nbytes(out));
    if (buffer && backend && values && expected) {
        uint32_t random = 1;
        for (int64_t i = 0; i < inputs * largest; i++) {
            random = random * 1664525u + 1013904223u;
            values[i] = ((float) (random >> 8) / (1 << 23) - 1.0f) * (1 + i % 7);
        }
        ggml_quantize_chunk(of->type, values, weights->data, 0, outputs, inputs, NULL);
        memcpy(x->data, values, ggml_nbytes(x));
        memset(x->data, 0, of->block * sizeof(float)); /* a block of zeros has no scale */
        set_threads(backend, threads);
        if (multiply_row_by_row(cpu, weights, x, expected)) {
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
