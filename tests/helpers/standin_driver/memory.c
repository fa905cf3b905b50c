/* Device memory: a range of addresses that are given once each, so that an address that was freed is always told. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "standin.h"

enum { GRAIN = 512, PAGE = 4096 };
static const size_t ADDRESSES = 1ull << 42, ON_DEVICE = 80ull << 30;

typedef struct {
    uint64_t first;
    size_t size;
    int freed;
} Allocation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t begin, next;
static Allocation *allocations; /* in the order of their addresses */
static size_t count, in_use;

/* The last allocation that begins at or before an address, or NULL. */
static Allocation *before(uint64_t address) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (allocations[middle].first <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &allocations[low - 1] : NULL;
}

static Result allocate(uint64_t *address, size_t size) {
    if (!begin) {
        void *all = mmap(NULL, ADDRESSES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED)
            return OUT_OF_MEMORY;
        begin = next = (uint64_t)all;
    }
    if (size > ON_DEVICE - in_use)
        return refuse(OUT_OF_MEMORY, "allocation of %zu bytes beside %zu", size, in_use);
    if (!(count & (count - 1)))
        allocations = realloc(allocations, (count ? 2 * count : 1) * sizeof *allocations);
    allocations[count++] = (Allocation){next, size, 0};
    *address = next;
    next += (size + PAGE - 1) / PAGE * PAGE + PAGE; /* a page between them: pages of freed ones go back to the system */
    in_use += size;
    memset((void *)*address, 0xff, size); /* NaN */
    return SUCCESS;
}

Result cuMemAlloc(uint64_t *address, size_t size) {
    Result result = outside_capture("allocate");
    if (result)
        return result;
    if (!size)
        return refuse(INVALID_VALUE, "allocation of no bytes");
    pthread_mutex_lock(&lock);
    result = allocate(address, size);
    pthread_mutex_unlock(&lock);
    if (!result)
        note("allocate %zu", size);
    return result;
}

Result cuMemFree(uint64_t address) {
    if (!address)
        return SUCCESS;
    Result result = outside_capture("free");
    if (result)
        return result;
    pthread_mutex_lock(&lock);
    Allocation *found = before(address);
    if (!found || found->first != address || found->freed)
        result = refuse(INVALID_VALUE, "free of an address that is not allocated");
    else {
        found->freed = 1;
        in_use -= found->size;
        madvise((void *)address, found->size, MADV_DONTNEED);
    }
    pthread_mutex_unlock(&lock);
    if (!result)
        note("free");
    return result;
}

Result check_range(uint64_t address, size_t size, const char *what) {
    pthread_mutex_lock(&lock);
    Allocation *found = before(address);
    Result result = SUCCESS;
    if (!found || address - found->first + size > found->size)
        result = refuse(ILLEGAL_ADDRESS, "%s reaches beyond any allocation", what);
    else if (found->freed)
        result = refuse(ILLEGAL_ADDRESS, "%s after the memory was freed", what);
    pthread_mutex_unlock(&lock);
    return result;
}

int is_device_address(uint64_t address) { return begin && begin <= address && address < begin + ADDRESSES; }

static Result copy(uint64_t to, uint64_t from, size_t size, int to_device, int from_device) {
    Result result = to_device ? check_range(to, size, "copy") : SUCCESS;
    if (!result && from_device)
        result = check_range(from, size, "copy");
    if (!result)
        memmove((void *)to, (const void *)from, size);
    return result;
}

/* Copies that wait would end a capture; those from and to the host's pageable memory wait, whatever their name. */
Result cuMemcpyHtoD(uint64_t to, const void *from, size_t size) {
    Result result = outside_capture("copy");
    return result ? result : copy(to, (uint64_t)from, size, 1, 0);
}
Result cuMemcpyDtoH(void *to, uint64_t from, size_t size) {
    Result result = outside_capture("copy");
    return result ? result : copy((uint64_t)to, from, size, 0, 1);
}
Result cuMemcpyDtoD(uint64_t to, uint64_t from, size_t size) {
    Result result = outside_capture("copy");
    return result ? result : copy(to, from, size, 1, 1);
}
Result cuMemcpyHtoDAsync(uint64_t to, const void *from, size_t size, void *stream) {
    (void)stream;
    return cuMemcpyHtoD(to, from, size);
}
Result cuMemcpyDtoHAsync(void *to, uint64_t from, size_t size, void *stream) {
    (void)stream;
    return cuMemcpyDtoH(to, from, size);
}
Result cuMemcpyDtoDAsync(uint64_t to, uint64_t from, size_t size, void *stream) {
    (void)stream;
    return copy(to, from, size, 1, 1);
}

Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t size, void *stream) {
    (void)stream;
    Result result = check_range(to, size, "memset");
    if (!result)
        memset((void *)to, value, size);
    return result;
}
Result cuMemsetD8(uint64_t to, unsigned char value, size_t size) {
    Result result = outside_capture("memset");
    return result ? result : cuMemsetD8Async(to, value, size, NULL);
}

Result cuMemGetInfo(size_t *unused, size_t *all) {
    *unused = ON_DEVICE - in_use;
    *all = ON_DEVICE;
    return SUCCESS;
}
Result cuMemGetAddressRange(uint64_t *first, size_t *size, uint64_t address) {
    Result result = check_range(address, 0, "address range");
    if (result)
        return result;
    Allocation *found = before(address);
    *first = found->first;
    *size = found->size;
    return SUCCESS;
}

/* CU_POINTER_ATTRIBUTE_... */
enum { OF_CONTEXT = 1, MEMORY_TYPE = 2, DEVICE_POINTER = 3, DEVICE_ORDINAL = 9, MEMORY_TYPE_DEVICE = 2 };

Result cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
    Result result = check_range(address, 0, "pointer attribute");
    if (result)
        return INVALID_VALUE;
    if (attribute == MEMORY_TYPE)
        *(unsigned *)value = MEMORY_TYPE_DEVICE;
    else if (attribute == DEVICE_POINTER)
        *(uint64_t *)value = address;
    else if (attribute == DEVICE_ORDINAL)
        *(int *)value = 0;
    else
        return refuse(NOT_SUPPORTED, "pointer attribute %d", attribute);
    return SUCCESS;
}
