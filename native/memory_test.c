/* Compares memory.c with loops over single bytes: all short lengths and places, and some long ones. */
#include <stdio.h>
#include <stdlib.h>

void *own_memcpy(void *, const void *, size_t);
void *own_memmove(void *, const void *, size_t);
int own_memcmp(const void *, const void *, size_t);
int own_bcmp(const void *, const void *, size_t);

enum { SIZE = 40000, MARGIN = 80 };
static unsigned char is[SIZE], should[SIZE], other[SIZE];

static void fill(void)
{
    for (int i = 0; i < SIZE; i++)
        is[i] = should[i] = (unsigned char)(i * 31 + i / 251);
}

static void same(const char *what, int n, int to, int from)
{
    for (int i = 0; i < SIZE; i++)
        if (is[i] != should[i]) {
            printf("%s: %d bytes from %d to %d: byte %d is wrong\n", what, n, from, to, i);
            exit(1);
        }
}

static void moved(int n, int to, int from)
{
    fill();
    if (to <= from)
        for (int i = 0; i < n; i++)
            should[to + i] = should[from + i];
    else
        for (int i = n; i-- > 0;)
            should[to + i] = should[from + i];
    if (own_memmove(is + to, is + from, n) != is + to)
        exit(2);
    same("memmove", n, to, from);
    if (to + n <= from || from + n <= to) {
        fill();
        for (int i = 0; i < n; i++)
            should[to + i] = should[from + i];
        if (own_memcpy(is + to, is + from, n) != is + to)
            exit(3);
        same("memcpy", n, to, from);
    }
}

static int sign(int number) { return number < 0 ? -1 : number > 0; }

static void compared(int n, int at, int place, int less)
{
    fill();
    for (int i = 0; i < n; i++)
        other[i] = is[at + i];
    int expected = 0;
    if (place < n) {
        /* A byte behind it that says the opposite must not count. */
        is[at + place] = less ? 0x01 : 0xfe;
        other[place] = less ? 0xfe : 0x01;
        if (place + 1 < n) {
            is[at + place + 1] = less ? 0xff : 0x00;
            other[place + 1] = less ? 0x00 : 0xff;
        }
        expected = less ? -1 : 1;
    }
    /* What follows is no part of it. */
    is[at + n] = 0, other[n] = 0xff;
    if (sign(own_memcmp(is + at, other, n)) != expected || (own_bcmp(is + at, other, n) != 0) != (expected != 0)) {
        printf("memcmp: %d bytes at %d, different at %d\n", n, at, place);
        exit(4);
    }
}

int main(void)
{
    static const int lengths[] = {511, 512, 513, 1000, 4095, 4096, 4097, 8200, 9001};
    int checks = 0;
    for (int n = 0; n <= 200; n++)
        for (int apart = -n - 1; apart <= n + 1; apart += n > 70 ? 7 : 1, checks++)
            moved(n, 500 + apart, 500 + n % 17);
    for (unsigned l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (int apart = -MARGIN; apart <= MARGIN; apart++, checks++) {
            moved(lengths[l], 10000 + apart, 10000);
            moved(lengths[l], 20000 + apart, 3 + (apart & 15));
        }
    for (int n = 0; n <= 100; n++)
        for (int place = 0; place <= n; place++, checks++)
            compared(n, n % 9, place, place & 1);
    printf("%d checks\n", checks);
    return 0;
}
