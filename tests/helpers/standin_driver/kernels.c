/* Kernels: loaded from machine code, whose facts are read; launched only within the limits of the device and the code. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cubin.h"
#include "standin.h"

typedef struct {
    void *image;
} Library;

typedef struct {
    Library *library;
    char *name;
    Description code;
    int dynamic_shared; /* bytes that a launch may ask for */
    int any_cluster;    /* also larger ones than are portable */
} Kernel;

/* As in cuda.h, so far as it is looked at. */
typedef struct {
    unsigned id;
    char pad[4];
    union {
        char fill[64];
        struct {
            unsigned x, y, z;
        } cluster;
        int cooperative;
    } value;
} LaunchAttribute;

typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream;
    LaunchAttribute *attributes;
    unsigned count;
} LaunchConfig;

enum { COOPERATIVE = 2, CLUSTER = 4 }; /* CU_LAUNCH_ATTRIBUTE_... */

/* CU_FUNC_ATTRIBUTE_... */
enum { MAX_THREADS = 0, STATIC_SHARED = 1, REGISTER_COUNT = 4, MAX_DYNAMIC_SHARED = 8, NON_PORTABLE_CLUSTER = 14 };

/* Clusters lie within a GPC; of those of an H100 some have lost multiprocessors. */
static const int GPC[] = {16, 16, 16, 16, 16, 16, 18, 18};

/* Loading. */

Result cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    size_t size = cubin_size(code);
    if (!size)
        return refuse(INVALID_IMAGE, "code that is no cubin");
    Result result = outside_capture("load");
    if (result)
        return result;
    Library *made = malloc(sizeof *made);
    made->image = memcpy(malloc(size), code, size);
    *library = made;
    note("load %zu", size);
    return SUCCESS;
}
Result cuLibraryUnload(void *library) { /* kernels may be asked for their name after it */
    (void)library;
    return SUCCESS;
}

Result cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    Kernel *made = calloc(1, sizeof *made);
    made->library = library;
    made->name = strdup(name);
    if (!describe_kernel(made->library->image, name, &made->code))
        return refuse(NOT_FOUND, "no kernel %s", name);
    made->dynamic_shared = BLOCK_SHARED - (int)made->code.static_shared;
    *kernel = made;
    return SUCCESS;
}
Result cuLibraryGetGlobal(uint64_t *address, size_t *size, void *library, const char *name) {
    (void)address, (void)size, (void)library, (void)name;
    return NOT_FOUND;
}
Result cuLibraryGetModule(void **module, void *library) {
    *module = library;
    return SUCCESS;
}
Result cuModuleLoadDataEx(void **module, const void *code, unsigned n, void *options, void *values) {
    (void)n, (void)options, (void)values;
    return cuLibraryLoadData(module, code, NULL, NULL, 0, NULL, NULL, 0);
}
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    return cuLibraryGetKernel(function, module, name);
}
Result cuModuleUnload(void *module) { return cuLibraryUnload(module); }
Result cuKernelGetFunction(void **function, void *kernel) {
    *function = kernel;
    return SUCCESS;
}
Result cuKernelGetLibrary(void **library, void *kernel) {
    *library = ((Kernel *)kernel)->library;
    return SUCCESS;
}
Result cuKernelGetName(const char **name, void *kernel) {
    *name = ((Kernel *)kernel)->name;
    return SUCCESS;
}
Result cuKernelGetParamInfo(void *kernel, size_t index, size_t *offset, size_t *size) {
    const Description *code = &((Kernel *)kernel)->code;
    if (index >= code->parameters)
        return INVALID_VALUE;
    *offset = code->parameter[index].offset;
    if (size)
        *size = code->parameter[index].size;
    return SUCCESS;
}

/* Attributes. */

Result cuFuncGetAttribute(int *value, int attribute, void *function) {
    const Kernel *kernel = function;
    switch (attribute) {
    case MAX_THREADS:
        *value = kernel->code.threads ? (int)kernel->code.threads : BLOCK_THREADS;
        break;
    case STATIC_SHARED:
        *value = kernel->code.static_shared;
        break;
    case REGISTER_COUNT:
        *value = kernel->code.registers;
        break;
    case MAX_DYNAMIC_SHARED:
        *value = kernel->dynamic_shared;
        break;
    case NON_PORTABLE_CLUSTER:
        *value = kernel->any_cluster;
        break;
    default:
        *value = 0;
    }
    return SUCCESS;
}
Result cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) {
    return device ? INVALID_DEVICE : cuFuncGetAttribute(value, attribute, kernel);
}

Result cuFuncSetAttribute(void *function, int attribute, int value) {
    Kernel *kernel = function;
    if (attribute == MAX_DYNAMIC_SHARED) {
        if (value < 0 || value + (int)kernel->code.static_shared > BLOCK_SHARED_OPTIN)
            return refuse(INVALID_VALUE, "%d bytes of shared memory, of %d", value, BLOCK_SHARED_OPTIN);
        kernel->dynamic_shared = value;
    } else if (attribute == NON_PORTABLE_CLUSTER)
        kernel->any_cluster = value;
    else
        return refuse(NOT_SUPPORTED, "attribute %d", attribute);
    note("set %d %d", attribute, value);
    return SUCCESS;
}
Result cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    return device ? refuse(INVALID_DEVICE, "device %d", device) : cuFuncSetAttribute(kernel, attribute, value);
}

/* Limits. */

static int registers_of_block(const Kernel *kernel, int threads) {
    int warps = (threads + WARP - 1) / WARP;
    int of_warp = (kernel->code.registers * WARP + REGISTER_GRAIN - 1) / REGISTER_GRAIN * REGISTER_GRAIN;
    return warps * of_warp;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* How many blocks a multiprocessor runs at once. */
static int blocks_at_once(const Kernel *kernel, int threads, int shared) {
    int bytes = shared + (int)kernel->code.static_shared + RESERVED_SHARED;
    int found = smaller(MULTIPROCESSOR_BLOCKS, MULTIPROCESSOR_THREADS / ((threads + WARP - 1) / WARP * WARP));
    found = smaller(found, REGISTERS / registers_of_block(kernel, threads));
    return smaller(found, MULTIPROCESSOR_SHARED / bytes);
}

static unsigned size_of(const unsigned *sides) { return sides[0] * sides[1] * sides[2]; }

static void read_attributes(const LaunchConfig *config, unsigned *cluster, int *cooperative) {
    *cluster = 1;
    *cooperative = 0;
    for (unsigned i = 0; i < config->count; i++) {
        if (config->attributes[i].id == CLUSTER)
            *cluster = config->attributes[i].value.cluster.x;
        else if (config->attributes[i].id == COOPERATIVE)
            *cooperative = config->attributes[i].value.cooperative;
    }
}

static Result check_limits(const Kernel *kernel, const LaunchConfig *config) {
    unsigned blocks = size_of(config->grid), threads = size_of(config->block), cluster;
    int cooperative;
    read_attributes(config, &cluster, &cooperative);
    if (!blocks || !threads || threads > BLOCK_THREADS)
        return refuse(INVALID_VALUE, "%u blocks of %u threads", blocks, threads);
    if (kernel->code.threads && threads > kernel->code.threads)
        return refuse(INVALID_VALUE, "%u threads; the launch bounds are %u", threads, kernel->code.threads);
    if ((int)config->shared > kernel->dynamic_shared)
        return refuse(INVALID_VALUE, "%u bytes of shared memory; the kernel may have %d", config->shared, kernel->dynamic_shared);
    if (registers_of_block(kernel, threads) > REGISTERS)
        return refuse(LAUNCH_OUT_OF_RESOURCES, "%u registers in %u threads", kernel->code.registers, threads);
    if (!cluster || cluster > LARGEST_CLUSTER || (cluster > PORTABLE_CLUSTER && !kernel->any_cluster))
        return refuse(INVALID_CLUSTER_SIZE, "a cluster of %u", cluster);
    if (blocks % cluster)
        return refuse(INVALID_VALUE, "%u blocks in clusters of %u", blocks, cluster);
    int at_once = blocks_at_once(kernel, threads, config->shared);
    if (!at_once)
        return refuse(LAUNCH_OUT_OF_RESOURCES, "a block that has no room");
    if (cooperative && blocks > (unsigned)(MULTIPROCESSORS * at_once))
        return refuse(COOPERATIVE_LAUNCH_TOO_LARGE, "%u blocks that wait for each other; room for %d", blocks, MULTIPROCESSORS * at_once);
    return SUCCESS;
}

/* Every word of the arguments that is an address of the device's has to lie in memory that is not freed. */
static Result check_arguments(const Kernel *kernel, void **arguments) {
    for (unsigned i = 0; i < kernel->code.parameters; i++) {
        const char *argument = arguments[i];
        for (unsigned at = 0; at + 8 <= kernel->code.parameter[i].size; at += 8) {
            uint64_t value;
            memcpy(&value, argument + at, sizeof value);
            if (is_device_address(value)) {
                Result result = check_range(value, 1, "launch");
                if (result)
                    return result;
            }
        }
    }
    return SUCCESS;
}

Result cuLaunchKernelEx(const LaunchConfig *config, void *function, void **arguments, void **extra) {
    const Kernel *kernel = function;
    unsigned cluster;
    int cooperative;
    if (extra)
        return refuse(NOT_SUPPORTED, "arguments in a buffer");
    Result result = check_limits(kernel, config);
    if (!result)
        result = check_arguments(kernel, arguments);
    if (result)
        return result;
    read_attributes(config, &cluster, &cooperative);
    note("launch %s blocks %u threads %u shared %u cluster %u cooperative %d registers %u", kernel->name, size_of(config->grid),
         size_of(config->block), config->shared, cluster, cooperative, kernel->code.registers);
    return SUCCESS;
}
Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
    LaunchConfig config = {{gx, gy, gz}, {bx, by, bz}, shared, stream, NULL, 0};
    return cuLaunchKernelEx(&config, function, arguments, extra);
}

/* Occupancy. */

Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *function, int threads, size_t shared, unsigned flags) {
    (void)flags;
    *blocks = blocks_at_once(function, threads, shared);
    return SUCCESS;
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}
Result cuOccupancyMaxActiveClusters(int *clusters, void *function, const LaunchConfig *config) {
    unsigned cluster;
    int cooperative;
    Result result = check_limits(function, config);
    if (result)
        return result;
    read_attributes(config, &cluster, &cooperative);
    int at_once = blocks_at_once(function, size_of(config->block), config->shared);
    *clusters = 0;
    for (size_t i = 0; i < sizeof GPC / sizeof *GPC; i++)
        *clusters += GPC[i] * at_once / cluster;
    return SUCCESS;
}
