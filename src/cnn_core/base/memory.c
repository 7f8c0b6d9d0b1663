#if defined(__linux__)
#define _GNU_SOURCE /* madvise, posix_memalign under -std=c11 */
#endif

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <malloc.h>
#elif defined(__linux__)
#include <sys/mman.h>
#endif

/* From here on a buffer starts on a huge page's boundary and asks for huge pages: faulting in 4 KiB pages is slower than
 * the arithmetic on them. */
#define HUGE_PAGE ((size_t)2 << 20)

void *cnn_aligned_alloc(size_t bytes)
{
    if (bytes >= CNN_SIZE_LIMIT) return NULL;
    const size_t rounded = cnn_size_align(bytes == 0 ? 1 : bytes);
#if defined(_WIN32)
    return _aligned_malloc(rounded, CNN_ALIGNMENT);
#else
    void *memory = NULL;
    const size_t alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : CNN_ALIGNMENT;
    if (posix_memalign(&memory, alignment, rounded) != 0) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (rounded >= HUGE_PAGE) (void)madvise(memory, rounded & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

void cnn_aligned_free(void *memory)
{
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

void *cnn_allocate(const cnn_allocator *allocator, size_t bytes)
{
    if (allocator->allocate == NULL) return cnn_aligned_alloc(bytes);
    if (bytes >= CNN_SIZE_LIMIT) return NULL;
    return allocator->allocate(allocator->user, cnn_size_align(bytes == 0 ? 1 : bytes), CNN_ALIGNMENT);
}

void *cnn_allocate_zeroed(const cnn_allocator *allocator, size_t count, size_t element)
{
    const size_t bytes = cnn_size_mul(count, element);
    void *memory = cnn_allocate(allocator, bytes);
    return memory == NULL ? NULL : memset(memory, 0, bytes);
}

void cnn_release(const cnn_allocator *allocator, void *memory)
{
    if (memory == NULL) return;
    if (allocator->allocate == NULL)
        cnn_aligned_free(memory);
    else
        allocator->release(allocator->user, memory);
}
