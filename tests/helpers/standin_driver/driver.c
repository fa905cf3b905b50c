/* Devices, contexts, streams, events and the table of all functions.  Work is done as soon as it is submitted. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

enum { VERSION = 13000 };

/* The log. */

static void write_log(const char *before, const char *format, va_list values) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static FILE *file;
    const char *path = getenv("STANDIN_LOG");
    if (!path)
        return;
    pthread_mutex_lock(&lock);
    if (!file && (file = fopen(path, "a")))
        setvbuf(file, NULL, _IOLBF, 0);
    if (file) {
        fputs(before, file);
        vfprintf(file, format, values);
        fputc('\n', file);
    }
    pthread_mutex_unlock(&lock);
}

void note(const char *format, ...) {
    va_list values;
    va_start(values, format);
    write_log("", format, values);
    va_end(values);
}

Result refuse(Result result, const char *format, ...) {
    va_list values;
    va_start(values, format);
    write_log("refuse ", format, values);
    va_end(values);
    return result;
}

static const struct {
    Result result;
    const char *name, *words;
} RESULTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {INVALID_CLUSTER_SIZE, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "invalid cluster size"},
};

static Result describe(int error, const char **text, int in_words) {
    for (size_t i = 0; i < sizeof RESULTS / sizeof *RESULTS; i++)
        if ((int)RESULTS[i].result == error) {
            *text = in_words ? RESULTS[i].words : RESULTS[i].name;
            return SUCCESS;
        }
    return INVALID_VALUE;
}
static Result cuGetErrorName(int error, const char **name) { return describe(error, name, 0); }
static Result cuGetErrorString(int error, const char **text) { return describe(error, text, 1); }

/* The device. */

static Result cuInit(unsigned flags) {
    (void)flags;
    return SUCCESS;
}
static Result cuDriverGetVersion(int *version) {
    *version = VERSION;
    return SUCCESS;
}
static Result cuDeviceGetCount(int *count) {
    *count = 1;
    return SUCCESS;
}
static Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal ? INVALID_DEVICE : SUCCESS;
}
static Result cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    snprintf(name, size, "Stand-in for an H100");
    return SUCCESS;
}
static Result cuDeviceGetUuid(char *uuid, int device) {
    memset(uuid, 7 + device, 16);
    return SUCCESS;
}
static Result cuDeviceTotalMem(size_t *bytes, int device) {
    (void)device;
    *bytes = 80ull << 30;
    return SUCCESS;
}

/* CU_DEVICE_ATTRIBUTE_... */
static const int ATTRIBUTES[][2] = {
    {1, BLOCK_THREADS},
    {2, 1024}, /* sides of a block */
    {3, 1024},
    {4, 64},
    {5, 0x7fffffff}, /* of a grid */
    {6, 65535},
    {7, 65535},
    {8, BLOCK_SHARED},
    {10, WARP},
    {12, REGISTERS},
    {16, MULTIPROCESSORS},
    {39, MULTIPROCESSOR_THREADS},
    {41, 1}, /* unified addressing */
    {75, 9}, /* compute capability */
    {76, 0},
    {81, MULTIPROCESSOR_SHARED},
    {82, REGISTERS},
    {95, 1}, /* cooperative launches */
    {97, BLOCK_SHARED_OPTIN},
    {106, MULTIPROCESSOR_BLOCKS},
    {111, RESERVED_SHARED},
    {120, 1}, /* clusters */
};

static Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = 0;
    for (size_t i = 0; i < sizeof ATTRIBUTES / sizeof *ATTRIBUTES; i++)
        if (ATTRIBUTES[i][0] == attribute)
            *value = ATTRIBUTES[i][1];
    return SUCCESS;
}

/* Contexts: one, which a thread has to make its own. */

static int primary;
enum { DEEPEST = 64 };
static __thread void *current[DEEPEST];
static __thread int depth;

static Result cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &primary;
    return device ? INVALID_DEVICE : SUCCESS;
}
static Result cuDevicePrimaryCtxRelease(int device) { return device ? INVALID_DEVICE : SUCCESS; }
static Result cuDevicePrimaryCtxReset(int device) { return device ? INVALID_DEVICE : SUCCESS; }
static Result cuDevicePrimaryCtxSetFlags(int device, unsigned flags) {
    (void)flags;
    return device ? INVALID_DEVICE : SUCCESS;
}
static Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return device ? INVALID_DEVICE : SUCCESS;
}
static Result cuCtxGetCurrent(void **context) {
    *context = depth ? current[depth - 1] : NULL;
    return SUCCESS;
}
static Result cuCtxSetCurrent(void *context) {
    depth -= depth > 0;
    if (context)
        current[depth++] = context;
    return SUCCESS;
}
static Result cuCtxPushCurrent(void *context) {
    if (depth == DEEPEST)
        return INVALID_VALUE;
    current[depth++] = context;
    return SUCCESS;
}
static Result cuCtxPopCurrent(void **context) {
    if (!depth)
        return INVALID_CONTEXT;
    depth--;
    if (context)
        *context = current[depth];
    return SUCCESS;
}
static Result in_context(void) { return depth ? SUCCESS : refuse(INVALID_CONTEXT, "a thread without a context"); }
static Result cuCtxGetDevice(int *device) {
    *device = 0;
    return depth ? SUCCESS : INVALID_CONTEXT; /* asked to learn whether there is one */
}
static Result cuCtxGetFlags(unsigned *flags) {
    *flags = 0;
    return in_context();
}
static Result cuCtxGetApiVersion(void *context, unsigned *version) {
    (void)context;
    *version = VERSION;
    return SUCCESS;
}
static Result cuCtxGetId(void *context, unsigned long long *id) {
    (void)context;
    *id = 1;
    return SUCCESS;
}
static Result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}
static Result cuCtxSynchronize(void) {
    Result result = outside_capture("wait");
    return result ? result : in_context();
}

/* Streams and captures, of which there is one at a time, in the mode that refuses whatever would wait or allocate. */

static void *const NO_STREAM = NULL;
static void *captured;
static int invalidated;

Result outside_capture(const char *what) {
    if (!captured)
        return SUCCESS;
    invalidated = 1;
    return refuse(STREAM_CAPTURE_UNSUPPORTED, "%s while a stream is captured", what);
}

static Result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    *stream = malloc(1);
    return SUCCESS;
}
static Result cuStreamCreate(void **stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }
static Result cuStreamDestroy(void *stream) {
    free(stream);
    return SUCCESS;
}
static Result cuStreamSynchronize(void *stream) {
    (void)stream;
    return outside_capture("wait");
}
static Result cuStreamQuery(void *stream) {
    (void)stream;
    return outside_capture("ask");
}
static Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream, (void)event, (void)flags;
    return SUCCESS;
}
static Result cuStreamGetCtx(void *stream, void **context) {
    (void)stream;
    *context = &primary;
    return SUCCESS;
}
static Result cuStreamGetCtx_v2(void *stream, void **context, void **green) {
    if (green)
        *green = NULL;
    return cuStreamGetCtx(stream, context);
}
static Result cuStreamGetDevice(void *stream, int *device) {
    (void)stream;
    *device = 0;
    return SUCCESS;
}
static Result cuStreamGetId(void *stream, unsigned long long *id) {
    *id = (unsigned long long)stream;
    return SUCCESS;
}
static Result cuStreamGetPriority(void *stream, int *priority) {
    (void)stream;
    *priority = 0;
    return SUCCESS;
}
static Result cuStreamGetFlags(void *stream, unsigned *flags) {
    (void)stream;
    *flags = 0;
    return SUCCESS;
}
static Result cuStreamBeginCapture(void *stream, int mode) {
    (void)mode;
    if (captured || stream == NO_STREAM)
        return refuse(STREAM_CAPTURE_UNSUPPORTED, "capture");
    captured = stream;
    invalidated = 0;
    note("capture");
    return SUCCESS;
}
static Result cuStreamEndCapture(void *stream, void **graph) {
    if (stream != captured)
        return INVALID_VALUE;
    captured = NULL;
    *graph = invalidated ? NULL : malloc(1);
    note("captured");
    return invalidated ? STREAM_CAPTURE_INVALIDATED : SUCCESS;
}
static Result cuStreamIsCapturing(void *stream, int *status) {
    *status = captured && stream == captured ? 1 + invalidated : 0;
    return SUCCESS;
}
static Result cuGraphDestroy(void *graph) {
    free(graph);
    return SUCCESS;
}

/* Events: nothing is measured; between any two lie 100 ms. */

static Result cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    *event = malloc(1);
    return SUCCESS;
}
static Result cuEventDestroy(void *event) {
    free(event);
    return SUCCESS;
}
static Result cuEventRecord(void *event, void *stream) {
    (void)event, (void)stream;
    return SUCCESS;
}
static Result cuEventSynchronize(void *event) {
    (void)event;
    return outside_capture("wait");
}
static Result cuEventQuery(void *event) {
    (void)event;
    return SUCCESS;
}
static Result cuEventElapsedTime(float *milliseconds, void *first, void *second) {
    (void)first, (void)second;
    *milliseconds = 100;
    return SUCCESS;
}
static Result nothing(void) { return SUCCESS; }

/* The table. */

#define ELSEWHERE(name) extern Result name();
#define OTHER_FILES(each) \
    each(cuMemAlloc) each(cuMemFree) each(cuMemcpyHtoD) each(cuMemcpyDtoH) each(cuMemcpyDtoD) each(cuMemcpyHtoDAsync) \
    each(cuMemcpyDtoHAsync) each(cuMemcpyDtoDAsync) each(cuMemsetD8) each(cuMemsetD8Async) each(cuMemGetInfo) \
    each(cuMemGetAddressRange) each(cuPointerGetAttribute) each(cuLibraryLoadData) each(cuLibraryUnload) \
    each(cuLibraryGetKernel) each(cuLibraryGetGlobal) each(cuLibraryGetModule) each(cuModuleLoadDataEx) \
    each(cuModuleGetFunction) each(cuModuleUnload) each(cuKernelGetFunction) each(cuKernelGetLibrary) \
    each(cuKernelGetName) each(cuKernelGetParamInfo) each(cuFuncGetAttribute) each(cuKernelGetAttribute) \
    each(cuFuncSetAttribute) each(cuKernelSetAttribute) each(cuLaunchKernelEx) each(cuLaunchKernel) \
    each(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags) each(cuOccupancyMaxActiveBlocksPerMultiprocessor) \
    each(cuOccupancyMaxActiveClusters)
OTHER_FILES(ELSEWHERE)

#define ENTRY(name) {#name, name},
static const struct {
    const char *name;
    void *function;
} TABLE[] = {
    OTHER_FILES(ENTRY)
    ENTRY(cuInit) ENTRY(cuDriverGetVersion) ENTRY(cuGetErrorName) ENTRY(cuGetErrorString) ENTRY(cuDeviceGetCount)
    ENTRY(cuDeviceGet) ENTRY(cuDeviceGetName) ENTRY(cuDeviceGetUuid) ENTRY(cuDeviceTotalMem) ENTRY(cuDeviceGetAttribute)
    ENTRY(cuDevicePrimaryCtxRetain) ENTRY(cuDevicePrimaryCtxRelease) ENTRY(cuDevicePrimaryCtxReset)
    ENTRY(cuDevicePrimaryCtxSetFlags) ENTRY(cuDevicePrimaryCtxGetState) ENTRY(cuCtxGetCurrent) ENTRY(cuCtxSetCurrent)
    ENTRY(cuCtxPushCurrent) ENTRY(cuCtxPopCurrent) ENTRY(cuCtxGetDevice) ENTRY(cuCtxGetFlags) ENTRY(cuCtxGetApiVersion)
    ENTRY(cuCtxGetId) ENTRY(cuCtxGetStreamPriorityRange) ENTRY(cuCtxSynchronize) ENTRY(cuStreamCreate)
    ENTRY(cuStreamCreateWithPriority) ENTRY(cuStreamDestroy) ENTRY(cuStreamSynchronize) ENTRY(cuStreamQuery)
    ENTRY(cuStreamWaitEvent) ENTRY(cuStreamGetCtx) ENTRY(cuStreamGetCtx_v2) ENTRY(cuStreamGetDevice) ENTRY(cuStreamGetId)
    ENTRY(cuStreamGetPriority) ENTRY(cuStreamGetFlags) ENTRY(cuStreamBeginCapture) ENTRY(cuStreamEndCapture)
    ENTRY(cuStreamIsCapturing) ENTRY(cuGraphDestroy) ENTRY(cuEventCreate) ENTRY(cuEventDestroy) ENTRY(cuEventRecord)
    ENTRY(cuEventSynchronize) ENTRY(cuEventQuery) ENTRY(cuEventElapsedTime) {"cuProfilerStart", nothing},
    {"cuProfilerStop", nothing},
};

Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    (void)flags;
    if (!strcmp(name, "cuStreamGetCtx") && version >= 12050)
        name = "cuStreamGetCtx_v2";
    *function = !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : NULL;
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
        if (!strcmp(TABLE[i].name, name))
            *function = TABLE[i].function;
    if (status)
        *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
