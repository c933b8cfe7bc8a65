// Sums of decision trees: the layout of src/backend/tabular/forest, on a GPU.
//
// A row is encoded into one unsigned number per slot, which trees compare with their nodes' keys (layout.rs, slots.rs: the
// same numbers, so the same leaves). Leaves' values are added tree by tree in the order of the file and in the library's own
// precision, so sums are those of the CPU to the last bit, however the work is cut:
//
// - `forest_rows`: a thread has a row, a block a tile of rows, whose encoded numbers lie in shared memory; the trees come by in
//   chunks, which the block loads into shared memory together. For many rows.
// - `forest_leaves` and `forest_sums`: a thread has a row and every n-th tree and says which leaf it is, then a thread has a row
//   and an output and adds. For few rows, which alone would leave most of the GPU idle.

#include "encode.h"

struct alignas(8) Narrow {
    uint32_t key;
    uint16_t lane_offset;
    uint16_t left;
};

struct Wide {
    uint32_t key;
    uint32_t lane_offset;
    uint32_t left;
};

// Lanes of a block on the CPU, in which its offsets count.
const uint32_t LANES = 16;

struct Tree {
    uint32_t root;
    uint32_t depth;
    uint32_t output;
};

// Trees whose nodes lie together and fit into a chunk of shared memory, or one that does not.
struct Chunk {
    uint32_t first_tree, trees;
    uint32_t first_node, nodes;
};

struct Forest {
    Rows rows;
    const void* nodes;
    const Tree* trees;
    const Chunk* chunks;
    // `width` of them for each leaf, or null: then a leaf's key has the bits of its value.
    const double* values;
    // What sums begin with, for each output; they are f32 or f64, as the sums.
    const void* start;
    void* sums;
    // What `forest_leaves` leaves to `forest_sums`: the key of the leaf of each tree and row, rows side by side.
    uint32_t* leaves;
    uint32_t tree_count, chunk_count;
    uint32_t outputs, width;
    // Rows of a tile.
    uint32_t tile;
    // Bytes of shared memory for a chunk of nodes, behind the tile; 0: they are read where they are.
    uint32_t chunk_bytes;
};

// The key of the leaf that a lane of a tile falls into.
template <typename Node>
static __device__ uint32_t leaf(const Node* tree, uint32_t depth, const uint32_t* tile, uint32_t tile_rows, uint32_t lane) {
    uint32_t at = 0;
    Node node = tree[0];
    for (uint32_t step = 0; step < depth; step++) {
        uint32_t number = tile[node.lane_offset / LANES * tile_rows + lane];
        uint32_t next = node.left + (number > node.key);
        if (next == at) break; // a leaf stays where it is
        at = next;
        node = tree[at];
    }
    return node.key;
}

template <typename Sum>
static __device__ Sum value_of(const Forest& forest, uint32_t key, uint32_t place) {
    if (forest.values == nullptr) return (Sum)float_of(key);
    return (Sum)forest.values[(uint64_t)key * forest.width + place];
}

// Adds trees' values to a row's sums. The sum of the output that trees add to is kept at hand as long as it is the same.
template <typename Sum>
struct Adding {
    const Forest& forest;
    Sum* sums; // of the row
    uint32_t output;
    Sum sum;

    __device__ Adding(const Forest& forest, uint32_t row, bool has_row) : forest(forest), output(0), sum(0) {
        sums = (Sum*)forest.sums + (uint64_t)row * forest.outputs;
        if (!has_row) return;
        for (uint32_t at = 0; at < forest.outputs; at++) sums[at] = ((const Sum*)forest.start)[at];
        sum = sums[0];
    }

    __device__ void add(uint32_t to, uint32_t key) {
        if (to != output) {
            sums[output] = sum;
            sum = sums[output = to];
        }
        sum += value_of<Sum>(forest, key, 0);
        for (uint32_t at = 1; at < forest.width && to + at < forest.outputs; at++) sums[to + at] += value_of<Sum>(forest, key, at);
    }

    __device__ void finish() { sums[output] = sum; }
};

template <typename Node, typename Sum>
static __device__ void sum_rows(const Forest& forest) {
    uint32_t* tile = (uint32_t*)SHARED;
    uint32_t tile_bytes = forest.tile * (forest.rows.slots_tested + 1) * sizeof(uint32_t);
    Node* staged = (Node*)(SHARED + (tile_bytes + 15) / 16 * 16);
    const Node* nodes = (const Node*)forest.nodes;
    uint32_t tiles = (forest.rows.count + forest.tile - 1) / forest.tile;
    for (uint32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
        uint32_t first = number * forest.tile, row = first + threadIdx.x;
        bool has_row = threadIdx.x < forest.tile && row < forest.rows.count;
        encode_tile(forest.rows, first, tile, forest.tile);
        Adding<Sum> adding(forest, row, has_row);
        for (uint32_t at = 0; at < forest.chunk_count; at++) {
            const Chunk chunk = forest.chunks[at];
            const Node* here = nodes + chunk.first_node;
            if (chunk.nodes * sizeof(Node) <= forest.chunk_bytes) {
                for (uint32_t node = threadIdx.x; node < chunk.nodes; node += blockDim.x) staged[node] = here[node];
                here = staged;
            }
            __syncthreads();
            for (uint32_t number = chunk.first_tree; has_row && number < chunk.first_tree + chunk.trees; number++) {
                const Tree tree = forest.trees[number];
                const Node* root = here + (tree.root - chunk.first_node);
                adding.add(tree.output, leaf(root, tree.depth, tile, forest.tile, threadIdx.x));
            }
            __syncthreads();
        }
        if (has_row) adding.finish();
    }
}

// As many blocks share a tile as the grid has more of them than there are tiles; of those, and of the threads that share a
// row, each has every n-th tree.
template <typename Node>
static __device__ void leaves(const Forest& forest) {
    uint32_t* tile = (uint32_t*)SHARED;
    const Node* nodes = (const Node*)forest.nodes;
    uint32_t tiles = (forest.rows.count + forest.tile - 1) / forest.tile;
    uint32_t blocks = gridDim.x / tiles, threads = blockDim.x / forest.tile;
    uint32_t first = blockIdx.x / blocks * forest.tile, lane = threadIdx.x % forest.tile, row = first + lane;
    encode_tile(forest.rows, first, tile, forest.tile);
    if (threadIdx.x >= threads * forest.tile || row >= forest.rows.count) return;
    uint32_t part = blockIdx.x % blocks * threads + threadIdx.x / forest.tile;
    for (uint32_t number = part; number < forest.tree_count; number += blocks * threads) {
        const Tree tree = forest.trees[number];
        uint32_t key = leaf(nodes + tree.root, tree.depth, tile, forest.tile, lane);
        forest.leaves[(uint64_t)number * forest.rows.count + row] = key;
    }
}

// The first tree that adds to an output from this one on, where trees lie by their outputs.
static __device__ uint32_t first_tree(const Forest& forest, uint32_t output) {
    uint32_t from = 0, to = forest.tree_count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (forest.trees[middle].output < output) from = middle + 1;
        else to = middle;
    }
    return from;
}

template <typename Sum>
static __device__ void sums(const Forest& forest) {
    uint64_t number = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t row = (uint32_t)(number % forest.rows.count), output = (uint32_t)(number / forest.rows.count);
    if (output >= forest.outputs) return;
    // Leaves with a value for each output have trees of any order.
    uint32_t from = forest.width == 1 ? first_tree(forest, output) : 0;
    uint32_t to = forest.width == 1 ? first_tree(forest, output + 1) : forest.tree_count;
    Sum sum = ((const Sum*)forest.start)[output];
    for (uint32_t number = from; number < to; number++) {
        uint32_t first = forest.width == 1 ? output : forest.trees[number].output;
        if (first > output || output - first >= forest.width) continue;
        sum += value_of<Sum>(forest, forest.leaves[(uint64_t)number * forest.rows.count + row], output - first);
    }
    ((Sum*)forest.sums)[(uint64_t)row * forest.outputs + output] = sum;
}

KERNEL(forest_rows_narrow_f32, Forest) { sum_rows<Narrow, float>(args); }
KERNEL(forest_rows_narrow_f64, Forest) { sum_rows<Narrow, double>(args); }
KERNEL(forest_rows_wide_f32, Forest) { sum_rows<Wide, float>(args); }
KERNEL(forest_rows_wide_f64, Forest) { sum_rows<Wide, double>(args); }
KERNEL(forest_leaves_narrow, Forest) { leaves<Narrow>(args); }
KERNEL(forest_leaves_wide, Forest) { leaves<Wide>(args); }
KERNEL(forest_sums_f32, Forest) { sums<float>(args); }
KERNEL(forest_sums_f64, Forest) { sums<double>(args); }
