// The device pipeline's kernels: from a picture to a list of cells, and from cells to the classifier's input.
//
// Plain CUDA C, nothing that NVRTC lacks. No shared memory and no synchronisation within a launch, so that
// cuda_on_cpu.h can run the threads one after the other. Compile without contraction of a*b+c (--fmad=false,
// -ffp-contract=off): where OpenCV fuses, fmaf says so.
//
// Every kernel is one-dimensional. Its first parameter is the number of threads; thread k is INDEX.
// Pictures are (height, width, 3) unsigned char, blue, green, red. `host.py` and `cells.py` say what is computed;
// the comments here only say how.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void
#define INDEX ((int)(blockIdx.x * blockDim.x + threadIdx.x))
#define WORD 32  // pixels to a thread where neighbours are taken together, bits to a word

static __device__ int clamped(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

static __device__ u8 grey(float v) {
    v = rintf(v);
    return (u8)(v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v);
}

// ---------------------------------------------------------------------------------------------- resampling

// How one axis is resampled, worked out by resampling.py: output k takes source pixels at[k], at[k] + 1, ...
// with the weights offset[k] to offset[k + 1] - 1.
struct Axis {
    const int *at;
    const int *offset;
    const float *weight;
};

static __device__ struct Axis axis(const int *at, const float *weight, int size) {
    struct Axis a;
    a.at = at;
    a.offset = at + size;
    a.weight = weight;
    return a;
}

// Rules of rounding, as OpenCV has them.
#define AREA 0       // averages with weights
#define AREA_WHOLE 1 // averages over whole pixels: an integer sum times a factor
#define AREA_TWO 2   // averages over 2x2: halves are rounded up
#define LINEAR 3     // interpolation with weights of 1/2048

// Interpolate floats between the pixels next to (x, y), `channels` apart; `stride` values to a row.
static __device__ float between(const float *values, int width, int height, int stride, int channels, int channel,
                                struct Axis x, struct Axis y, int dx, int dy) {
    int x0 = clamped(x.at[dx], 0, width - 1), x1 = clamped(x.at[dx] + 1, 0, width - 1);
    int y0 = clamped(y.at[dy], 0, height - 1), y1 = clamped(y.at[dy] + 1, 0, height - 1);
    const float *upper = values + (long long)y0 * stride + channel, *lower = values + (long long)y1 * stride + channel;
    float tx = x.weight[2 * dx + 1], ty = y.weight[2 * dy + 1];
    float a = fmaf(upper[x1 * channels] - upper[x0 * channels], tx, upper[x0 * channels]);
    float b = fmaf(lower[x1 * channels] - lower[x0 * channels], tx, lower[x0 * channels]);
    return fmaf(b - a, ty, a);
}

// The background's inverse on its coarse grid, and how it is stretched over a picture.
struct Light {
    const float *gain;
    int columns, rows;
    struct Axis x, y;
};

static __device__ struct Light light(const float *gain, int columns, int rows, const int *x_at, const float *x_weight,
                                     int width, const int *y_at, const float *y_weight, int height) {
    struct Light l;
    l.gain = gain;
    l.columns = columns;
    l.rows = rows;
    l.x = axis(x_at, x_weight, width);
    l.y = axis(y_at, y_weight, height);
    return l;
}

static __device__ u8 flat(u8 value, struct Light l, int x, int y, int channel) {
    return grey((float)value * between(l.gain, l.columns, l.rows, 3 * l.columns, 3, channel, l.x, l.y, x, y));
}

// What can be resampled: a picture, or the square around a cell with everything else black.
#define PICTURE 0
#define WINDOW 1 // the picture under the flat field, only near the cell
#define OWN 2    // 255 on the cell
#define OTHER 3  // 255 on other cells

struct Source {
    int kind;
    const u8 *pixels;
    const int *labels;
    int width, height;             // of the picture
    int left, top;                 // of the window in it
    int x0, y0, x1, y1;            // what may be looked at, in the picture; x1, y1 excluded
    int own;                       // the cell's label
    int size_x, size_y;            // what is resampled
    struct Light light;
};

static __device__ int value(const struct Source *s, int x, int y, int channel) {
    if (s->kind == PICTURE) return s->pixels[((long long)y * s->width + x) * 3 + channel];
    x += s->left;
    y += s->top;
    if (x < s->x0 || x >= s->x1 || y < s->y0 || y >= s->y1) return 0;
    long long at = (long long)y * s->width + x;
    if (s->kind == WINDOW) return flat(s->pixels[at * 3 + channel], s->light, x, y, channel);
    int label = s->labels[at];
    return s->kind == OWN ? (label == s->own ? 255 : 0) : (label > 0 && label != s->own ? 255 : 0);
}

static __device__ int resample(const struct Source *s, struct Axis x, struct Axis y, int rule, int dx, int dy,
                               int channel) {
    int xa = x.at[dx], ya = y.at[dy], right = s->size_x - 1, below = s->size_y - 1;
    int nx = x.offset[dx + 1] - x.offset[dx], ny = y.offset[dy + 1] - y.offset[dy];
    const float *wx = x.weight + x.offset[dx], *wy = y.weight + y.offset[dy];
    if (rule == LINEAR) {
        int x0 = clamped(xa, 0, right), x1 = clamped(xa + 1, 0, right);
        int y0 = clamped(ya, 0, below), y1 = clamped(ya + 1, 0, below);
        int a = value(s, x0, y0, channel) * (int)wx[0] + value(s, x1, y0, channel) * (int)wx[1];
        int b = value(s, x0, y1, channel) * (int)wx[0] + value(s, x1, y1, channel) * (int)wx[1];
        return ((((int)wy[0] * (a >> 4)) >> 16) + (((int)wy[1] * (b >> 4)) >> 16) + 2) >> 2;
    }
    if (rule == AREA) {
        float sum = 0.0f;
        for (int j = 0; j < ny; ++j) {
            float row = 0.0f;
            for (int i = 0; i < nx; ++i) row = row + (float)value(s, xa + i, ya + j, channel) * wx[i];
            sum = sum + wy[j] * row;
        }
        return grey(sum);
    }
    int sum = 0;
    for (int j = 0; j < ny; ++j)
        for (int i = 0; i < nx; ++i) sum += value(s, xa + i, ya + j, channel);
    return rule == AREA_TWO ? (sum + 2) >> 2 : grey((float)sum * (1.0f / (float)(nx * ny)));
}

static __device__ struct Source picture_source(const u8 *pixels, int width, int height) {
    struct Source s;
    s.kind = PICTURE;
    s.pixels = pixels;
    s.labels = 0;
    s.width = s.size_x = width;
    s.height = s.size_y = height;
    s.left = s.top = s.x0 = s.y0 = s.own = 0;
    s.x1 = width;
    s.y1 = height;
    s.light.gain = 0;
    return s;
}

// ---------------------------------------------------------------------------------------------- illumination

// One thread: one value of the reduced picture.
KERNEL shrink(int threads, const u8 *picture, int width, int height, u8 *small, int small_width, const int *x_at,
              const float *x_weight, const int *y_at, const float *y_weight, int small_height, int rule) {
    int k = INDEX;
    if (k >= threads) return;
    struct Source s = picture_source(picture, width, height);
    int pixel = k / 3;
    small[k] = (u8)resample(&s, axis(x_at, x_weight, small_width), axis(y_at, y_weight, small_height), rule,
                            pixel % small_width, pixel / small_width, k % 3);
}

// One thread: one channel of one block. `edges`: columns + 1 edges in x, then rows + 1 in y, then for each block how
// many of its pixels are darker than its background.
KERNEL block_background(int threads, const u8 *small, int small_width, const int *edges, int columns, int rows,
                        float *blocks) {
    int k = INDEX;
    if (k >= threads) return;
    int channel = k % 3, column = k / 3 % columns, row = k / 3 / columns;
    int xa = edges[column], xb = edges[column + 1];
    int ya = edges[columns + 1 + row], yb = edges[columns + 2 + row];
    int histogram[256];
    for (int v = 0; v < 256; ++v) histogram[v] = 0;
    for (int y = ya; y < yb; ++y)
        for (int x = xa; x < xb; ++x) histogram[small[(y * small_width + x) * 3 + channel]]++;
    int rank = edges[columns + rows + 2 + row * columns + column], level = 0;
    for (int below = histogram[0]; below <= rank && level < 255; below += histogram[level]) ++level;
    blocks[k] = (float)level;
}

// A block's background, lifted or lowered to the median of its neighbours where it differs too much.
static __device__ float lifted(const float *blocks, int columns, int rows, int x, int y, int channel) {
    float near[9];
    int n = 0;
    for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
            int at = clamped(y + dy, 0, rows - 1) * columns + clamped(x + dx, 0, columns - 1);
            float v = blocks[at * 3 + channel];
            int i = n++;
            for (; i > 0 && near[i - 1] > v; --i) near[i] = near[i - 1];
            near[i] = v;
        }
    float own = blocks[(y * columns + x) * 3 + channel], median = near[4];
    if (own < 0.93f * median) return median;
    return fminf(own, 1.07f * median);
}

// One thread: one channel of one block. `side` and `middle` are the weights of the smoothing.
KERNEL even_background(int threads, const float *blocks, int columns, int rows, float side, float middle, float target,
                       float *background, float *gain) {
    int k = INDEX;
    if (k >= threads) return;
    int channel = k % 3, x = k / 3 % columns, y = k / 3 / columns;
    float level = blocks[k];
    if (rows >= 3 && columns >= 3) {
        float row[3];
        for (int j = 0; j < 3; ++j) {
            int yy = clamped(y + j - 1, 0, rows - 1);
            float a = lifted(blocks, columns, rows, clamped(x - 1, 0, columns - 1), yy, channel);
            float b = lifted(blocks, columns, rows, x, yy, channel);
            float c = lifted(blocks, columns, rows, clamped(x + 1, 0, columns - 1), yy, channel);
            row[j] = fmaf(b, middle, (a + c) * side);
        }
        level = fmaf(row[0] + row[2], side, row[1] * middle);
    }
    level = fmaxf(level, 1.0f);
    background[k] = level;
    gain[k] = target / level;
}

// ---------------------------------------------------------------------------------------------- the segmenter

// One thread: one pixel of the segmenter's input, RGB; beyond (width, height) the edge is repeated.
// `as_float`: 0 to 1 instead of 0 to 255. `green`: the green channel, width x height, for `count_foreign`.
KERNEL normalise(int threads, const u8 *picture, int source_width, int source_height, const int *x_at,
                 const float *x_weight, const int *y_at, const float *y_weight, int rule, const float *gain,
                 int columns, int rows, const int *gain_x_at, const float *gain_x_weight, const int *gain_y_at,
                 const float *gain_y_weight, int width, int height, int padded_width, int as_float, void *input,
                 u8 *green) {
    int k = INDEX;
    if (k >= threads) return;
    int px = k % padded_width, py = k / padded_width;
    int x = px < width ? px : width - 1, y = py < height ? py : height - 1;
    struct Source s = picture_source(picture, source_width, source_height);
    struct Axis ax = axis(x_at, x_weight, width), ay = axis(y_at, y_weight, height);
    struct Light l = light(gain, columns, rows, gain_x_at, gain_x_weight, width, gain_y_at, gain_y_weight, height);
    for (int channel = 0; channel < 3; ++channel) {
        u8 v = flat((u8)resample(&s, ax, ay, rule, x, y, channel), l, x, y, channel);
        long long to = (long long)k * 3 + 2 - channel;
        if (as_float)
            ((float *)input)[to] = (float)v * (1.0f / 255.0f);
        else
            ((u8 *)input)[to] = v;
        if (channel == 1 && px == x && py == y) green[y * width + x] = v;
    }
}

// One thread: WORD pixels of a row. Counts what is darker than `limit` and not within 2 px of a cell.
KERNEL count_foreign(int threads, const float *probability, int stride, float threshold, const u8 *green, int limit,
                     int width, int height, int *count) {
    int k = INDEX;
    if (k >= threads) return;
    int words = (width + WORD - 1) / WORD, y = k / words, start = k % words * WORD, found = 0;
    for (int x = start; x < width && x < start + WORD; ++x) {
        if (green[y * width + x] >= limit) continue;
        int near = 0;
        for (int j = y - 2; j <= y + 2 && !near; ++j)
            for (int i = x - 2; i <= x + 2 && !near; ++i)
                near = j >= 0 && j < height && i >= 0 && i < width && probability[(long long)j * stride + i] >= threshold;
        found += !near;
    }
    if (found) atomicAdd(count, found);
}

// ---------------------------------------------------------------------------------------------- components
//
// Union-find on the picture's pixels, after Komura and the ECL-CC algorithm: `parent` leads to a pixel of the same
// component with a smaller index, roots to themselves. Only roots are ever linked, to smaller roots, by compare and
// swap; so whatever the order of the threads, a component's root is its first pixel in raster order. Cells are
// joined over 8 neighbours, background over 4: so one pass finds both the cells and their holes.

// What threads of one launch read while others write it: whole words, in no order. cuda_on_cpu.h says it in its own way.
#ifndef LOAD
#define LOAD(at) (*(volatile int *)(at))
#define STORE(at, v) (*(volatile int *)(at) = (v))
#endif

static __device__ int root_of(int *parent, int i) {
    int up = LOAD(parent + i);
    while (up != i) {
        int above = LOAD(parent + up);
        if (above != up) STORE(parent + i, above); // halves the path; i is no root and never becomes one
        i = up;
        up = above;
    }
    return i;
}

static __device__ void join(int *parent, int a, int b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    while (a != b) {
        if (a < b) {
            int t = a;
            a = b;
            b = t;
        }
        int before = atomicCAS(parent + a, a, b);
        if (before == a) return;
        a = root_of(parent, before);
        b = root_of(parent, b);
    }
}

// One thread: WORD pixels of a row at the picture's own size. cell: 1 where the enlarged probability reaches the
// threshold; each pixel's parent is the first of its run.
KERNEL threshold_mask(int threads, const float *probability, int stride, int small_width, int small_height,
                      const int *x_at, const float *x_weight, const int *y_at, const float *y_weight, int width,
                      int height, float threshold, u8 *cell, int *parent, int *area) {
    int k = INDEX;
    if (k >= threads) return;
    int words = (width + WORD - 1) / WORD, y = k / words, start = k % words * WORD;
    struct Axis ax = axis(x_at, x_weight, width), ay = axis(y_at, y_weight, height);
    int run = 0, last = -1;
    for (int x = start; x < width && x < start + WORD; ++x) {
        int at = y * width + x;
        int inside = between(probability, small_width, small_height, stride, 1, 0, ax, ay, x, y) >= threshold;
        if (inside != last) run = at;
        last = inside;
        cell[at] = (u8)inside;
        parent[at] = run;
        area[at] = 0;
    }
}

// One thread: one pixel. Joins it to its neighbours above, and to the left where runs were cut.
// What a neighbour to the left or right joins as well is left to that one.
KERNEL join_runs(int threads, const u8 *cell, int *parent, int width) {
    int at = INDEX;
    if (at >= threads) return;
    int x = at % width, own = cell[at], left = x > 0 && cell[at - 1] == own;
    if (left && x % WORD == 0) join(parent, at, at - 1);
    if (at < width) return;
    int up = at - width, up_left = x > 0 && cell[up - 1] == own;
    if (cell[up] == own) {
        if (!(left && up_left)) join(parent, at, up);
    } else if (own) {
        if (up_left && !left) join(parent, at, up - 1);
        if (x + 1 < width && cell[up + 1] && !cell[at + 1]) join(parent, at, up + 1);
    }
}

// One thread: one pixel of the picture's edge. Marks background that reaches it, in `area` of its root.
KERNEL mark_open(int threads, const u8 *cell, int *parent, int width, int height, int *area) {
    int k = INDEX;
    if (k >= threads) return;
    int x, y;
    if (k < 2 * width) {
        x = k % width;
        y = k < width ? 0 : height - 1;
    } else {
        k -= 2 * width;
        x = k % 2 ? width - 1 : 0;
        y = k / 2;
    }
    int at = y * width + x;
    if (!cell[at]) STORE(area + root_of(parent, at), 1);
}

// One thread: one pixel. Holes become cell, marked 2.
KERNEL fill_holes(int threads, u8 *cell, int *parent, const int *area) {
    int at = INDEX;
    if (at >= threads || cell[at]) return;
    if (!area[root_of(parent, at)]) cell[at] = 2;
}

// One thread: one pixel. Joins filled holes to what surrounds them; diagonal neighbours follow by way of straight ones.
KERNEL join_holes(int threads, const u8 *cell, int *parent, int width) {
    int at = INDEX;
    if (at >= threads || cell[at] != 2) return;
    int x = at % width;
    // A hole never touches the picture's edge.
    if (cell[at - width] == 1) join(parent, at, at - width);
    if (cell[at + width] == 1) join(parent, at, at + width);
    if (x > 0 && cell[at - 1] == 1) join(parent, at, at - 1);
    if (x + 1 < width && cell[at + 1] == 1) join(parent, at, at + 1);
}

// One thread: WORD pixels of a row. Leads every pixel straight to its root, and counts each root's pixels.
KERNEL count_areas(int threads, const u8 *cell, int *parent, int width, int *area) {
    int k = INDEX;
    if (k >= threads) return;
    int words = (width + WORD - 1) / WORD, y = k / words, start = k % words * WORD;
    int last = -1, run = 0;
    for (int x = start; x < width && x < start + WORD; ++x) {
        int at = y * width + x;
        int root = -1;
        if (cell[at]) {
            root = root_of(parent, at);
            STORE(parent + at, root);
        }
        if (root != last && run) {
            atomicAdd(area + last, run);
            run = 0;
        }
        last = root;
        if (root >= 0) ++run;
    }
    if (run) atomicAdd(area + last, run);
}

// Which roots are kept, as a tree of counts: bits of 32 pixels, and counts of 32, 32^2 and 32^3 words. A root's
// row number is the number of kept roots before it, read off the tree.
struct Tree {
    u32 *bits;
    int *level1, *level2, *level3;
};

static __device__ struct Tree tree(int *counts, int pixels) {
    struct Tree t;
    int words = (pixels + WORD - 1) / WORD, first = (words + 31) / 32, second = (first + 31) / 32;
    t.bits = (u32 *)counts;
    t.level1 = counts + words;
    t.level2 = t.level1 + first;
    t.level3 = t.level2 + second;
    return t;
}

// One thread: one int.
KERNEL clear(int threads, int *memory) {
    int k = INDEX;
    if (k < threads) memory[k] = 0;
}

// One thread: one pixel. Components of `least` px and more are kept.
KERNEL keep_large(int threads, const u8 *cell, const int *parent, const int *area, int least, int *counts, int *total) {
    int at = INDEX;
    if (at >= threads || !cell[at] || parent[at] != at || area[at] < least) return;
    struct Tree t = tree(counts, threads);
    int word = at / WORD;
    atomicOr(t.bits + word, 1u << (at % WORD));
    atomicAdd(t.level1 + word / 32, 1);
    atomicAdd(t.level2 + word / 1024, 1);
    atomicAdd(t.level3 + word / 32768, 1);
    atomicAdd(total, 1);
}

// A component: first and last column and row, area, sums of its pixels' columns and rows, and which of GRID x GRID
// points spread over its box lie in it (bit GRID * line + column).
#define GRID 8
struct Component {
    int x0, y0, x1, y1, area, unused;
    u64 sum_x, sum_y, grid;
};

// One thread: one word of the tree. `area` of a kept root becomes -(row + 1).
KERNEL number_rows(int threads, const int *counts, int pixels, int *area, struct Component *found) {
    int word = INDEX;
    if (word >= threads) return;
    struct Tree t = tree((int *)counts, pixels);
    u32 bits = t.bits[word];
    if (!bits) return;
    int row = 0;
    for (int i = 0; i < word / 32768; ++i) row += t.level3[i];
    for (int i = word / 32768 * 32; i < word / 1024; ++i) row += t.level2[i];
    for (int i = word / 1024 * 32; i < word / 32; ++i) row += t.level1[i];
    for (int i = word / 32 * 32; i < word; ++i) row += __popc(t.bits[i]);
    for (int bit = 0; bit < WORD; ++bit) {
        if (!(bits >> bit & 1)) continue;
        int root = word * WORD + bit;
        struct Component *c = found + row;
        c->x0 = c->y0 = 0x7fffffff;
        c->x1 = c->y1 = -1;
        c->area = area[root];
        c->unused = 0;
        c->sum_x = c->sum_y = c->grid = 0;
        area[root] = -(++row);
    }
}

static __device__ void note_run(struct Component *c, int first, int last, int y) {
    int n = last - first + 1;
    atomicMin(&c->x0, first);
    atomicMax(&c->x1, last);
    atomicMin(&c->y0, y);
    atomicMax(&c->y1, y);
    atomicAdd(&c->sum_x, (u64)n * (u64)(first + last) / 2);
    atomicAdd(&c->sum_y, (u64)n * (u64)y);
}

// One thread: WORD pixels of a row. Writes the labels and what is known of each component.
KERNEL label_cells(int threads, const u8 *cell, const int *parent, const int *area, int width, int *labels,
                   struct Component *found) {
    int k = INDEX;
    if (k >= threads) return;
    int words = (width + WORD - 1) / WORD, y = k / words, start = k % words * WORD;
    int last = 0, first = 0, x = start;
    for (; x < width && x < start + WORD; ++x) {
        int at = y * width + x, label = 0;
        if (cell[at]) {
            label = -area[parent[at]];
            if (label < 0) label = 0;
        }
        labels[at] = label;
        if (label != last) {
            if (last) note_run(found + last - 1, first, x - 1, y);
            first = x;
            last = label;
        }
    }
    if (last) note_run(found + last - 1, first, x - 1, y);
}

// Any number of threads share the rows. `heads`: components found, foreign pixels; `report` is what the host reads:
// the same two, then the components.
KERNEL report_cells(int threads, const int *heads, const struct Component *found, const int *labels, int width,
                    int *report) {
    int k = INDEX;
    if (k >= threads) return;
    if (k < 2) report[k] = heads[k];
    struct Component *out = (struct Component *)(report + 4);
    for (int row = k; row < heads[0]; row += threads) {
        struct Component c = found[row];
        int w = c.x1 - c.x0 + 1, h = c.y1 - c.y0 + 1;
        for (int j = 0; j < GRID; ++j)
            for (int i = 0; i < GRID; ++i) {
                int x = c.x0 + (2 * i + 1) * w / (2 * GRID), y = c.y0 + (2 * j + 1) * h / (2 * GRID);
                if (labels[(long long)y * width + x] == row + 1) c.grid |= 1ull << (GRID * j + i);
            }
        out[row] = c;
    }
}

// One thread: one byte of the bit mask, rows padded to bytes, the first pixel in the highest bit.
KERNEL pack_mask(int threads, const int *labels, int width, u8 *bits) {
    int k = INDEX;
    if (k >= threads) return;
    int bytes = (width + 7) / 8, y = k / bytes, start = k % bytes * 8;
    u32 packed = 0;
    for (int i = 0; i < 8; ++i)
        if (start + i < width && labels[(long long)y * width + start + i]) packed |= 0x80u >> i;
    bits[k] = (u8)packed;
}

// ---------------------------------------------------------------------------------------------- light and edges
//
// What rbcedge/light.py measures: grey levels of background and rims, and the steepness of edges in four directions.
// Everything is counted in histograms of whole numbers, so that the order of the threads does not matter.

#define CELL 1   // marks: the pixel is cell
#define SHRUNK 2 // ... and everything within reach is
#define LEVELS 4096 // bins of each direction
#define EDGES 512   // where they begin: 256 of background and 256 of rims stand before them
#define CHUNK 64 // bins summed by one thread

// One thread: one pixel of the window's green channel, averaged down.
KERNEL shrink_green(int threads, const u8 *picture, int width, int left, int top, int window_width, int window_height,
                    const int *x_at, const float *x_weight, const int *y_at, const float *y_weight, int small_width,
                    int small_height, int rule, u8 *green) {
    int k = INDEX;
    if (k >= threads) return;
    struct Source s = picture_source(picture + ((long long)top * width + left) * 3, width, window_height);
    s.size_x = window_width;
    green[k] = (u8)resample(&s, axis(x_at, x_weight, small_width), axis(y_at, y_weight, small_height), rule,
                            k % small_width, k / small_width, 1);
}

// One thread: one pixel of the window's green channel as it is.
KERNEL copy_green(int threads, const u8 *picture, int width, int left, int top, int window_width, u8 *green) {
    int k = INDEX;
    if (k < threads)
        green[k] = picture[((long long)(top + k / window_width) * width + left + k % window_width) * 3 + 1];
}

// One thread: one pixel as measured. `columns`, `rows`: where each lies in the picture.
KERNEL mark_cells(int threads, const int *labels, int width, const int *columns, const int *rows, int small_width,
                  u8 *marks) {
    int k = INDEX;
    if (k < threads) marks[k] = labels[(long long)rows[k / small_width] * width + columns[k % small_width]] ? CELL : 0;
}

// Whether a pixel within `reach` of (x, y) has other bits than `bits` of `marks`; beyond the edge nothing is looked at.
static __device__ int differs_near(const u8 *marks, int width, int height, int x, int y, int reach, int mask,
                                   int bits) {
    for (int j = clamped(y - reach, 0, height); j <= y + reach && j < height; ++j)
        for (int i = clamped(x - reach, 0, width); i <= x + reach && i < width; ++i)
            if ((marks[j * width + i] & mask) != bits) return 1;
    return 0;
}

// One thread: one pixel. Marks cells' inside, `reach` px from their outline.
KERNEL mark_inside(int threads, const u8 *marks, int width, int height, int reach, u8 *inside) {
    int k = INDEX;
    if (k >= threads) return;
    int cell = marks[k];
    inside[k] = (u8)(cell && !differs_near(marks, width, height, k % width, k / width, reach, CELL, CELL) ? SHRUNK : 0);
}

// One thread: one pixel of every second row and column. Counts grey levels of background and rims.
KERNEL count_levels(int threads, const u8 *green, const u8 *marks, const u8 *inside, int width, int height, int reach,
                    int *bins) {
    int k = INDEX;
    if (k >= threads) return;
    int columns = (width + 1) / 2, x = k % columns * 2, y = k / columns * 2, at = y * width + x;
    if (!marks[at]) {
        if (!differs_near(marks, width, height, x, y, reach, CELL, 0)) atomicAdd(bins + green[at], 1);
    } else if (inside[at] && differs_near(inside, width, height, x, y, reach, SHRUNK, SHRUNK)) {
        atomicAdd(bins + 256 + green[at], 1);
    }
}

static __device__ int mirrored(int v, int size) {
    if (size == 1) return 0;
    if (v < 0) v = -v;
    return v < size ? v : 2 * size - 2 - v;
}

// The mask averaged over 5 x 5 px, 0 to 255; beyond the edge it is mirrored.
static __device__ int blurred(const u8 *marks, int width, int height, int x, int y) {
    int cells = 0;
    for (int j = -2; j <= 2; ++j)
        for (int i = -2; i <= 2; ++i)
            cells += marks[mirrored(y + j, height) * width + mirrored(x + i, width)];
    return (102 * cells + 5) / 10; // rounded; there are no halves
}

// One thread: one pixel of every third row from the third to the last but two. On outlines, counts the square root of
// 8 times the square of the steepest gradient nearby, by the outline's direction.
KERNEL count_edges(int threads, const u8 *green, const u8 *marks, int width, int height, int *bins) {
    int k = INDEX;
    if (k >= threads) return;
    int x = k % width, y = 2 + k / width * 3;
    if (x < 2 || x >= width - 2 || !differs_near(marks, width, height, x, y, 1, CELL, marks[y * width + x])) return;
    int steepest = 0;
    for (int j = y - 1; j <= y + 1; ++j)
        for (int i = x - 1; i <= x + 1; ++i) {
            const u8 *p = green + j * width + i, *above = p - width, *below = p + width;
            int gx = above[1] + 2 * p[1] + below[1] - above[-1] - 2 * p[-1] - below[-1];
            int gy = below[-1] + 2 * below[0] + below[1] - above[-1] - 2 * above[0] - above[1];
            int square = gx * gx + gy * gy;
            steepest = square > steepest ? square : steepest;
        }
    int b[3][3];
    for (int j = 0; j < 3; ++j)
        for (int i = 0; i < 3; ++i) b[j][i] = blurred(marks, width, height, x + i - 1, y + j - 1);
    int nx = b[0][2] + 2 * b[1][2] + b[2][2] - b[0][0] - 2 * b[1][0] - b[2][0];
    int ny = b[2][0] + 2 * b[2][1] + b[2][2] - b[0][0] - 2 * b[0][1] - b[0][2];
    float ax = (float)(nx < 0 ? -nx : nx), ay = (float)(ny < 0 ? -ny : ny);
    // The tangent of 22.5 degrees is irrational: no outline lies on the border of two directions.
    int sector = ay <= 0.41421356f * ax ? 0 : ax < 0.41421356f * ay ? 2 : (nx > 0) == (ny > 0) ? 1 : 3;
    // Both the product and its root are whole enough for float: 8 * steepest is below 2^24.
    atomicAdd(bins + EDGES + sector * LEVELS + (int)sqrtf((float)(8 * steepest)), 1);
}

// One thread: the sum of CHUNK bins.
KERNEL sum_bins(int threads, const int *bins, int *sums) {
    int k = INDEX;
    if (k >= threads) return;
    int sum = 0;
    for (int i = 0; i < CHUNK; ++i) sum += bins[k * CHUNK + i];
    sums[k] = sum;
}

// One thread: one histogram, background, rims, then the directions. Its number of values and their lower median.
KERNEL report_light(int threads, const int *bins, const int *sums, int *report) {
    int k = INDEX;
    if (k >= threads) return;
    int first = k < 2 ? k * 256 : EDGES + (k - 2) * LEVELS, size = k < 2 ? 256 : LEVELS;
    const int *chunk = sums + first / CHUNK;
    int total = 0, below = 0, c = 0, level = 0;
    for (int i = 0; i < size / CHUNK; ++i) total += chunk[i];
    if (total) {
        for (; 2 * (below + chunk[c]) < total; ++c) below += chunk[c];
        for (level = c * CHUNK; 2 * (below + bins[first + level]) < total; ++level) below += bins[first + level];
    }
    report[2 * k] = total;
    report[2 * k + 1] = level;
}

// ---------------------------------------------------------------------------------------------- the classifier

// The square around a component; `reach` source px around its box are looked at.
static __device__ struct Source window_source(const u8 *pixels, const int *labels, int width, int height,
                                              const struct Component *found, int row, int window, int reach) {
    struct Source s = picture_source(pixels, width, height);
    const struct Component *c = found + row;
    int w = c->x1 - c->x0 + 1, h = c->y1 - c->y0 + 1;
    s.labels = labels;
    s.own = row + 1;
    s.size_x = s.size_y = window;
    s.left = c->x0 + w / 2 - window / 2;
    s.top = c->y0 + h / 2 - window / 2;
    s.x0 = clamped(c->x0 - reach, s.left > 0 ? s.left : 0, width);
    s.y0 = clamped(c->y0 - reach, s.top > 0 ? s.top : 0, height);
    s.x1 = clamped(c->x1 + 1 + reach, 0, s.left + window < width ? s.left + window : width);
    s.y1 = clamped(c->y1 + 1 + reach, 0, s.top + window < height ? s.top + window : height);
    return s;
}

#define INNER 1
#define OUTER 2

// One thread: one pixel of one crop. Where the cell is (INNER) and where others are (OUTER), at the crop's scale.
// rows: one row number for each crop, -1 for none.
KERNEL outline_crops(int threads, const int *labels, int width, int height, const struct Component *found,
                     const int *rows, int side, int window, int reach, const int *x_at, const float *x_weight,
                     const int *y_at, const float *y_weight, int rule, u8 *outline) {
    int k = INDEX;
    if (k >= threads) return;
    int row = rows[k / (side * side)], x = k % side, y = k / side % side, mark = 0;
    if (row >= 0) {
        struct Source s = window_source(0, labels, width, height, found, row, window, reach);
        struct Axis ax = axis(x_at, x_weight, side), ay = axis(y_at, y_weight, side);
        s.kind = OWN;
        if ((window == side ? value(&s, x, y, 0) : resample(&s, ax, ay, rule, x, y, 0)) & 128) mark |= INNER;
        s.kind = OTHER;
        if ((window == side ? value(&s, x, y, 0) : resample(&s, ax, ay, rule, x, y, 0)) & 128) mark |= OUTER;
    }
    outline[k] = (u8)mark;
}

// One thread: one pixel of one crop. Its colour, RGB, where it is on the cell or within `rim` of it and not on another.
// half_width: for each of the 2 rim + 1 lines of the rim's element, how far it reaches to either side.
KERNEL cut_crops(int threads, const u8 *picture, int width, int height, const float *gain, int columns, int rows_,
                 const int *gain_x_at, const float *gain_x_weight, const int *gain_y_at, const float *gain_y_weight,
                 const struct Component *found, const int *rows, int side, int window, int reach, const int *x_at,
                 const float *x_weight, const int *y_at, const float *y_weight, int rule, const u8 *outline,
                 const int *half_width, int rim, int as_float, void *input) {
    int k = INDEX;
    if (k >= threads) return;
    int row = rows[k / (side * side)], x = k % side, y = k / side % side;
    int shown = 0;
    if (row >= 0 && !(outline[k] & OUTER))
        for (int j = -rim; j <= rim && !shown; ++j) {
            if (y + j < 0 || y + j >= side) continue;
            int half = half_width[j + rim];
            for (int i = -half; i <= half && !shown; ++i)
                shown = x + i >= 0 && x + i < side && (outline[k + j * side + i] & INNER);
        }
    struct Source s;
    if (shown) {
        s = window_source(picture, 0, width, height, found, row, window, reach);
        s.kind = WINDOW;
        s.light = light(gain, columns, rows_, gain_x_at, gain_x_weight, width, gain_y_at, gain_y_weight, height);
    }
    struct Axis ax = axis(x_at, x_weight, side), ay = axis(y_at, y_weight, side);
    for (int channel = 0; channel < 3; ++channel) {
        int v = 0;
        if (shown) v = window == side ? value(&s, x, y, channel) : resample(&s, ax, ay, rule, x, y, channel);
        long long to = (long long)k * 3 + 2 - channel;
        if (as_float)
            ((float *)input)[to] = (float)v * (1.0f / 255.0f);
        else
            ((u8 *)input)[to] = (u8)v;
    }
}

// One thread: one crop. The softmax of log(p) / temperature: rows sum to 1.
KERNEL temper(int threads, const float *probability, int classes, float exponent, float *out) {
    int k = INDEX;
    if (k >= threads) return;
    const float *from = probability + (long long)k * classes;
    float *to = out + (long long)k * classes;
    float sum = 0.0f;
    for (int c = 0; c < classes; ++c) {
        float p = fmaxf(from[c], 1e-6f);
        to[c] = exponent == 1.0f ? p : powf(p, exponent);
        sum = sum + to[c];
    }
    for (int c = 0; c < classes; ++c) to[c] = to[c] / sum;
}
