/* Random numbers as a pure function of where they are used: Philox 4x32-10, a counter-based generator (Salmon, Moraes, Dror
 * and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). There is no state to share, save or advance, so the
 * numbers are the same on any number of threads and every ISA. */
#ifndef CNN_BASE_RANDOM_H
#define CNN_BASE_RANDOM_H

#include <stdint.h>

/* Counters are encrypted side by side, one a lane, in a loop that compilers turn into vector code. */
#define CNN_PHILOX_LANES 16
/* Philox's multipliers, and what a round adds to the key. */
#define CNN_PHILOX_FACTOR0 UINT32_C(0xD2511F53)
#define CNN_PHILOX_FACTOR1 UINT32_C(0xCD9E8D57)
#define CNN_PHILOX_STEP0 UINT32_C(0x9E3779B9)
#define CNN_PHILOX_STEP1 UINT32_C(0xBB67AE85)

/* Replaces the four words of each lane's counter by four random words. */
static inline void cnn_philox(uint32_t word[4][CNN_PHILOX_LANES], uint64_t key)
{
    for (int lane = 0; lane < CNN_PHILOX_LANES; lane++) {
        uint32_t w0 = word[0][lane], w1 = word[1][lane], w2 = word[2][lane], w3 = word[3][lane];
        uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t product0 = (uint64_t)w0 * CNN_PHILOX_FACTOR0;
            const uint64_t product1 = (uint64_t)w2 * CNN_PHILOX_FACTOR1;
            w0 = (uint32_t)(product1 >> 32) ^ w1 ^ key0;
            w1 = (uint32_t)product1;
            w2 = (uint32_t)(product0 >> 32) ^ w3 ^ key1;
            w3 = (uint32_t)product0;
            key0 += CNN_PHILOX_STEP0;
            key1 += CNN_PHILOX_STEP1;
        }
        word[0][lane] = w0, word[1][lane] = w1, word[2][lane] = w2, word[3][lane] = w3;
    }
}

/* A sequence of random words, numbered by `high` and `low`; sequences of one seed that differ in either, or whose seeds
 * differ, are independent. */
typedef struct cnn_random_stream {
    uint64_t seed;
    uint32_t high; /* a multiple of 2^12: the bits below count blocks past 2^32 */
    uint64_t low;
} cnn_random_stream;

/* The words come in groups; word i of the sequence is words[i % CNN_RANDOM_GROUP] of group i / CNN_RANDOM_GROUP. */
#define CNN_RANDOM_GROUP (4 * CNN_PHILOX_LANES)

static inline void cnn_random_words(const cnn_random_stream *stream, uint64_t group, uint32_t words[CNN_RANDOM_GROUP])
{
    uint32_t word[4][CNN_PHILOX_LANES];
    for (int lane = 0; lane < CNN_PHILOX_LANES; lane++) {
        const uint64_t block = group * CNN_PHILOX_LANES + (uint64_t)lane;
        word[0][lane] = (uint32_t)block;
        word[1][lane] = stream->high + (uint32_t)(block >> 32);
        word[2][lane] = (uint32_t)stream->low;
        word[3][lane] = (uint32_t)(stream->low >> 32);
    }
    cnn_philox(word, stream->seed);
    for (int i = 0; i < 4; i++)
        for (int lane = 0; lane < CNN_PHILOX_LANES; lane++) words[i * CNN_PHILOX_LANES + lane] = word[i][lane];
}

#endif
