// What classifiers answer: probabilities of scores (softmax), and the k greatest of a row, the first of which is its class
// (argmax). A block has a row.

#include "kernel.h"

struct Classes {
    // [rows, classes]
    const float* scores;
    // [rows, classes]: exp(score - greatest) over the sum of those. Null: they are not asked for.
    float* probabilities;
    // [rows, k]: the greatest scores, descending, and which they are: of equal ones the first comes first. NaN is less than
    // everything.
    float* greatest;
    uint32_t* which;
    uint32_t rows, classes, k, unused;
};

// A score and its place in its row; a block's threads find the greatest of theirs.
struct Found {
    float score;
    uint32_t place;
};

const uint32_t NOBODY = 0xFFFFFFFFu;

static __device__ float score_of(float score) { return isnan(score) ? -INFINITY : score; }

// Whether one comes before another. Nobody comes last.
static __device__ bool is_before(Found one, Found other) {
    if (one.place == NOBODY || other.place == NOBODY) return one.place != NOBODY && other.place == NOBODY;
    return one.score > other.score || (one.score == other.score && one.place < other.place);
}

// The first of the row behind another, which is nobody at first. All threads together.
static __device__ Found next(const float* RESTRICT scores, uint32_t classes, Found after, Found* shared) {
    Found best = {0.0f, NOBODY};
    for (uint32_t place = threadIdx.x; place < classes; place += blockDim.x) {
        Found here = {score_of(scores[place]), place};
        if ((after.place == NOBODY || is_before(after, here)) && is_before(here, best)) best = here;
    }
    shared[threadIdx.x] = best;
    __syncthreads();
    for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && is_before(shared[threadIdx.x + half], shared[threadIdx.x])) {
            shared[threadIdx.x] = shared[threadIdx.x + half];
        }
        __syncthreads();
    }
    best = shared[0];
    __syncthreads();
    return best;
}

// Blocks have a power of two of threads, and room for a `Found` of each.
KERNEL(classes, Classes) {
    Found* shared = (Found*)SHARED;
    for (uint32_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
        const float* scores = args.scores + (uint64_t)row * args.classes;
        Found found = {0.0f, NOBODY};
        float greatest = 0.0f;
        for (uint32_t at = 0; at < args.k || at == 0; at++) {
            found = next(scores, args.classes, found, shared);
            if (at == 0) greatest = found.score;
            if (threadIdx.x == 0 && at < args.k) {
                args.greatest[(uint64_t)row * args.k + at] = scores[found.place];
                args.which[(uint64_t)row * args.k + at] = found.place;
            }
        }
        if (args.probabilities == nullptr) continue;
        float* sums = (float*)SHARED;
        float sum = 0.0f;
        for (uint32_t place = threadIdx.x; place < args.classes; place += blockDim.x) sum += expf(scores[place] - greatest);
        sums[threadIdx.x] = sum;
        __syncthreads();
        for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
            __syncthreads();
        }
        sum = sums[0];
        float* to = args.probabilities + (uint64_t)row * args.classes;
        for (uint32_t place = threadIdx.x; place < args.classes; place += blockDim.x) {
            to[place] = expf(scores[place] - greatest) / sum;
        }
        __syncthreads();
    }
}
