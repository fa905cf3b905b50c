#ifndef CUBIN_H
#define CUBIN_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_PARAMETERS = 128 };

/* What machine code says of one of its kernels. */
typedef struct {
    unsigned registers;     /* of a thread */
    unsigned threads;       /* of a block at most, as the launch bounds say; 0 without */
    unsigned static_shared; /* bytes of a block */
    unsigned parameters;
    struct {
        unsigned offset, size;
    } parameter[MAX_PARAMETERS];
} Description;

/* The size of a cubin in bytes, or 0 if it is none. */
size_t cubin_size(const void *image);

/* Whether the cubin has a kernel of this name; describes it. */
int describe_kernel(const void *image, const char *name, Description *found);

#endif
