// Shapley values of trees: how much each feature moved a row's sum away from the forest's mean, as
// src/backend/tabular/forest/shap.rs has it (TreeSHAP, Lundberg et al. 2018). Here every way from a root to a leaf is a path of
// its own, in which each feature stands once (GPUTreeShap, Mitchell, Frank and Holmes, PeerJ 2022): a block has a row, a thread
// every n-th path. Paths are added in any order, so sums differ from the CPU's, and from run to run, in their last bits.

#include "encode.h"

// A comparison that a row must pass to follow a path.
struct Condition {
    uint32_t slot;
    uint32_t key;
    uint32_t goes_right;
};

// A feature of a path.
struct Element {
    // Of the training rows that came to its splits those that follow the path.
    double zero;
    uint32_t feature;
    uint32_t first_condition, conditions;
    uint32_t unused;
};

struct Path {
    uint32_t first_element, elements;
    // The leaf's values lie from here on.
    uint32_t first_value;
    uint32_t output;
};

struct Shap {
    Rows rows;
    const Path* paths;
    const Element* elements;
    const Condition* conditions;
    const double* values;
    // Of each output, what the last place of a row begins with.
    const double* means;
    // [rows, outputs, features + 1]
    double* contributions;
    uint32_t path_count;
    uint32_t outputs, width, unused;
};

// Features of a path at most: those of longer ones are for the CPU.
const uint32_t MOST = 63;

// The sum of the weights of all subsets of a path's other features. `weights` has one more than the path has elements.
static __device__ double without(const double* weights, uint32_t elements, double zero, bool one) {
    double next = weights[elements], total = 0.0, size = elements + 1;
    for (uint32_t at = elements; at-- > 0;) {
        if (one) {
            double weight = next * size / (at + 1);
            next = weights[at] - weight * zero * (elements - at) / size;
            total += weight;
        } else if (zero != 0.0) {
            total += weights[at] * size / (zero * (elements - at));
        }
    }
    return total;
}

KERNEL(forest_contributions, Shap) {
    uint32_t* numbers = (uint32_t*)SHARED;
    uint32_t stride = args.rows.features + 1;
    for (uint32_t row = blockIdx.x; row < args.rows.count; row += gridDim.x) {
        double* contributions = args.contributions + (uint64_t)row * args.outputs * stride;
        for (uint32_t at = threadIdx.x; at < args.outputs * stride; at += blockDim.x) {
            contributions[at] = at % stride == stride - 1 ? args.means[at / stride] : 0.0;
        }
        encode_tile(args.rows, row, numbers, 1);
        for (uint32_t number = threadIdx.x; number < args.path_count; number += blockDim.x) {
            const Path path = args.paths[number];
            const Element* elements = args.elements + path.first_element;
            double weights[MOST + 1];
            uint64_t ones = 0;
            weights[0] = 1.0;
            for (uint32_t length = 1; length <= path.elements; length++) {
                const Element element = elements[length - 1];
                bool one = true;
                for (uint32_t at = 0; at < element.conditions; at++) {
                    const Condition condition = args.conditions[element.first_condition + at];
                    one = one && (numbers[condition.slot] > condition.key) == (condition.goes_right != 0);
                }
                ones |= (uint64_t)one << (length - 1);
                weights[length] = 0.0;
                for (uint32_t place = length; place-- > 0;) {
                    double weight = weights[place];
                    if (one) weights[place + 1] += weight * (place + 1) / (length + 1);
                    weights[place] = element.zero * weight * (length - place) / (length + 1);
                }
            }
            for (uint32_t at = 0; at < path.elements; at++) {
                const Element element = elements[at];
                bool one = ones >> at & 1;
                double weight = without(weights, path.elements, element.zero, one) * ((one ? 1.0 : 0.0) - element.zero);
                for (uint32_t value = 0; value < args.width && path.output + value < args.outputs; value++) {
                    double* to = contributions + (uint64_t)(path.output + value) * stride + element.feature;
                    add_atomically(to, weight * args.values[path.first_value + value]);
                }
            }
        }
        __syncthreads();
    }
}
