/* A stand-in for the CUDA driver of a machine with one H100: it allocates, copies, loads machine code and checks launches
   against the device's limits, and runs nothing.  What kernels would compute stays NaN.  Tests load it as libcuda.so.1. */

#ifndef STANDIN_H
#define STANDIN_H

#include <stddef.h>
#include <stdint.h>

/* Results, with the driver's numbers. */
typedef enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    COOPERATIVE_LAUNCH_TOO_LARGE = 720,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    INVALID_CLUSTER_SIZE = 912,
} Result;

/* What an H100 offers. */
enum {
    MULTIPROCESSORS = 132,
    BLOCK_THREADS = 1024,
    WARP = 32,
    MULTIPROCESSOR_THREADS = 2048,
    MULTIPROCESSOR_BLOCKS = 32,
    REGISTERS = 65536,
    REGISTER_GRAIN = 256, /* of a warp */
    BLOCK_SHARED = 49152, /* unless a kernel asks for more */
    BLOCK_SHARED_OPTIN = 232448,
    MULTIPROCESSOR_SHARED = 233472,
    RESERVED_SHARED = 1024, /* of a block, by the system */
    PORTABLE_CLUSTER = 8,
    LARGEST_CLUSTER = 16,
};

/* Write a line to the file that STANDIN_LOG names. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Note why something is refused; gives the result. */
Result refuse(Result result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* SUCCESS, or a refusal while a stream is captured, whose capture it ends: `what` would wait or allocate. */
Result outside_capture(const char *what);

/* SUCCESS if the bytes lie in one allocation that is not freed. */
Result check_range(uint64_t address, size_t size, const char *what);

/* Whether an address is one that the stand-in gives to allocations. */
int is_device_address(uint64_t address);

#endif
