/*
 * How long the allocator keeps memory that was given back, before the system gets it.
 *
 * mimalloc 3 keeps it for a second, mimalloc 2 kept it for 10 ms. A second's worth of batches, or of pages of a
 * history, is up to a quarter of what the program takes; to give it back at once costs a tenth of its time. 20 ms
 * take 1 to 3 MB less than 100 ms, for at most a few percent of the time.
 * docs/decisions/0035-mimalloc-and-a-static-package.md has the figures.
 *
 * MIMALLOC_PURGE_DELAY in the environment is stronger: this sets the default only.
 */
#include "mimalloc.h"

#define MILLISECONDS 20

__attribute__((constructor)) static void give_back_soon(void)
{
    mi_option_set_default(mi_option_purge_delay, MILLISECONDS);
}
