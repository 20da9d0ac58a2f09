/*
 * Copying and comparing memory in the static package for x86-64.
 *
 * musl copies with `rep movs` and then byte by byte, and compares byte by byte. A processor takes longer to begin a
 * `rep movs` than to copy the short pieces that the program's texts are made of: it was half of the packaged
 * handler's time. docs/decisions/0035-mimalloc-and-a-static-package.md has the figures.
 *
 * These take the place of musl's functions of the same names, because the linker sees them first (build.rs). Two loads
 * that overlap copy what is no multiple of a block's size. All loads of a short copy come before its first store, so
 * that its places may overlap.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint16_t __attribute__((may_alias, aligned(1))) two;
typedef uint32_t __attribute__((may_alias, aligned(1))) four;
typedef uint64_t __attribute__((may_alias, aligned(1))) eight;
typedef uint64_t __attribute__((vector_size(16), may_alias, aligned(1))) sixteen;

/* From here on `rep movsb` is faster than a loop on processors of the last ten years. */
#define LARGE 4096

#define LOAD(type, from, at) (*(const type *)((from) + (at)))
#define STORE(type, to, at, value) (*(type *)((to) + (at)) = (value))

/* At most 16 bytes, at places that may overlap. */
static inline void copy_few(unsigned char *to, const unsigned char *from, size_t n)
{
    if (n >= 8) {
        eight first = LOAD(eight, from, 0), last = LOAD(eight, from, n - 8);
        STORE(eight, to, 0, first);
        STORE(eight, to, n - 8, last);
    } else if (n >= 4) {
        four first = LOAD(four, from, 0), last = LOAD(four, from, n - 4);
        STORE(four, to, 0, first);
        STORE(four, to, n - 4, last);
    } else if (n >= 2) {
        two first = LOAD(two, from, 0), last = LOAD(two, from, n - 2);
        STORE(two, to, 0, first);
        STORE(two, to, n - 2, last);
    } else if (n == 1) {
        *to = *from;
    }
}

/* 17 to 64 bytes, at places that may overlap. */
static inline void copy_some(unsigned char *to, const unsigned char *from, size_t n)
{
    sixteen first = LOAD(sixteen, from, 0), last = LOAD(sixteen, from, n - 16);
    if (n > 32) {
        sixteen second = LOAD(sixteen, from, 16), last_but_one = LOAD(sixteen, from, n - 32);
        STORE(sixteen, to, 16, second);
        STORE(sixteen, to, n - 32, last_but_one);
    }
    STORE(sixteen, to, 0, first);
    STORE(sixteen, to, n - 16, last);
}

static inline void copy_block(unsigned char *to, const unsigned char *from)
{
    sixteen a = LOAD(sixteen, from, 0), b = LOAD(sixteen, from, 16);
    sixteen c = LOAD(sixteen, from, 32), d = LOAD(sixteen, from, 48);
    STORE(sixteen, to, 0, a);
    STORE(sixteen, to, 16, b);
    STORE(sixteen, to, 32, c);
    STORE(sixteen, to, 48, d);
}

/* More than 64 bytes, from the first to the last: right where `to` is before `from`, or the places do not overlap. */
static inline void copy_up(unsigned char *to, const unsigned char *from, size_t n)
{
    /* The end is loaded before anything is stored: a store may reach it. */
    unsigned char *end = to + n;
    sixteen a = LOAD(sixteen, from, n - 64), b = LOAD(sixteen, from, n - 48);
    sixteen c = LOAD(sixteen, from, n - 32), d = LOAD(sixteen, from, n - 16);
    for (; n > 64; n -= 64, to += 64, from += 64)
        copy_block(to, from);
    STORE(sixteen, end, -64, a);
    STORE(sixteen, end, -48, b);
    STORE(sixteen, end, -32, c);
    STORE(sixteen, end, -16, d);
}

/* More than 64 bytes, from the last to the first: right where `to` is behind `from`. */
static inline void copy_down(unsigned char *to, const unsigned char *from, size_t n)
{
    sixteen a = LOAD(sixteen, from, 0), b = LOAD(sixteen, from, 16);
    sixteen c = LOAD(sixteen, from, 32), d = LOAD(sixteen, from, 48);
    for (; n > 64; n -= 64)
        copy_block(to + n - 64, from + n - 64);
    STORE(sixteen, to, 0, a);
    STORE(sixteen, to, 16, b);
    STORE(sixteen, to, 32, c);
    STORE(sixteen, to, 48, d);
}

/* At places that do not overlap. */
static inline void copy_apart(unsigned char *to, const unsigned char *from, size_t n)
{
    if (n < LARGE)
        copy_up(to, from, n);
    else
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    if (n <= 16)
        copy_few(to, from, n);
    else if (n <= 64)
        copy_some(to, from, n);
    else
        copy_apart(to, from, n);
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    /* The differences wrap around zero. */
    if (n <= 16)
        copy_few(to, from, n);
    else if (n <= 64)
        copy_some(to, from, n);
    else if ((uintptr_t)to - (uintptr_t)from < n)
        copy_down(to, from, n);
    else if ((uintptr_t)from - (uintptr_t)to < n)
        copy_up(to, from, n);
    else
        copy_apart(to, from, n);
    return to;
}

/* The first byte in memory decides, which is the lowest of a loaded number. */
static inline int order(uint64_t left, uint64_t right)
{
    left = __builtin_bswap64(left);
    right = __builtin_bswap64(right);
    return left < right ? -1 : left > right;
}

int memcmp(const void *left, const void *right, size_t n)
{
    const unsigned char *l = left, *r = right;
    if (n < 8) {
        for (; n > 0; n--, l++, r++)
            if (*l != *r)
                return *l - *r;
        return 0;
    }
    for (; n > 8; n -= 8, l += 8, r += 8)
        if (LOAD(eight, l, 0) != LOAD(eight, r, 0))
            return order(LOAD(eight, l, 0), LOAD(eight, r, 0));
    return order(LOAD(eight, l + n, -8), LOAD(eight, r + n, -8));
}

int bcmp(const void *left, const void *right, size_t n)
{
    return memcmp(left, right, n);
}
