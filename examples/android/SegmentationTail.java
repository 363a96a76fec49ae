package segrt;

/**
 * From the logits of a network that segrt-export wrote to labels, as segrt computes them.
 *
 * <p>The network ends at its own logits, 1/4 or 1/8 of its input. They are upsampled bilinearly, the
 * class with the largest value wins, and labels go to the source image by nearest neighbour. Only
 * pixels that the source image needs are computed, and only where the four logits around a pixel do
 * not agree on a class. Ties go to the lowest class, and NaN counts as the largest value.
 *
 * <pre>{@code
 * int[] labels = SegmentationTail.labels(logits, 11, 45, 60, 360, 480, 1080, 1440, false);
 * int top = labels[0]; // the class of the pixel in the upper left corner
 * }</pre>
 */
public final class SegmentationTail {
    // Differences between logits within +-SAFE don't overflow.
    private static final float SAFE = Float.MAX_VALUE / 4;

    private final float[] logits;
    private final int classes;
    private final int plane;
    private final int width;
    private final Axis rows;
    private final Axis cols;

    private SegmentationTail(float[] logits, int classes, int h, int w, Axis rows, Axis cols) {
        this.logits = logits;
        this.classes = classes;
        this.plane = h * w;
        this.width = w;
        this.rows = rows;
        this.cols = cols;
    }

    /**
     * Labels every pixel of the source image.
     *
     * @param logits the network's output for one image: classes x h x w, row by row. A network with
     *     one channel gives the logits of class 1: put a plane of zeros before it, for class 0.
     * @param classes number of classes.
     * @param h height of the logits.
     * @param w width of the logits.
     * @param height height of the network's input; that of the source image if the metadata say
     *     {@code "interpolate_to": "source"}.
     * @param width likewise, the width.
     * @param sourceHeight height of the image before it was resized for the network.
     * @param sourceWidth likewise, the width.
     * @param alignCorners {@code upsample.align_corners} of the metadata; false if they lack it.
     * @return sourceHeight x sourceWidth class ids, row by row.
     * @throws IllegalArgumentException if a size is not positive, or is not that of the logits.
     */
    public static int[] labels(
            float[] logits, int classes, int h, int w, int height, int width,
            int sourceHeight, int sourceWidth, boolean alignCorners) {
        if (Math.min(Math.min(classes, Math.min(h, w)), Math.min(height, width)) < 1
                || Math.min(sourceHeight, sourceWidth) < 1) {
            throw new IllegalArgumentException("sizes must be positive");
        }
        if (logits.length != (long) classes * h * w) {
            throw new IllegalArgumentException(
                    logits.length + " logits are not " + classes + " x " + h + " x " + w);
        }
        // A source larger than the input repeats pixels: each is computed once.
        Axis rows = new Axis(h, height, Math.min(height, sourceHeight), alignCorners);
        Axis cols = new Axis(w, width, Math.min(width, sourceWidth), alignCorners);
        SegmentationTail tail = new SegmentationTail(logits, classes, h, w, rows, cols);
        int[] computed = tail.isSafe() ? tail.sparse() : tail.dense();
        int pixelRows = rows.weight.length;
        int pixelCols = cols.weight.length;
        if (pixelRows == sourceHeight && pixelCols == sourceWidth) {
            return computed;
        }
        int[] labels = new int[Math.multiplyExact(sourceHeight, sourceWidth)];
        for (int y = 0; y < sourceHeight; y++) {
            int from = nearest(y, pixelRows, sourceHeight) * pixelCols;
            for (int x = 0; x < sourceWidth; x++) {
                labels[y * sourceWidth + x] = computed[from + nearest(x, pixelCols, sourceWidth)];
            }
        }
        return labels;
    }

    /** The pixel, of {@code full}, that is the sample {@code i} of {@code samples}. */
    private static int nearest(int i, int full, int samples) {
        return (int) Math.min(i * (1 / ((double) samples / full)), full - 1);
    }

    /** One axis of the upsampling: for each pixel, the logits around it and its position. */
    private static final class Axis {
        /** Index of the logit before and after each pixel; the same at the edges. */
        final int[] before;
        final int[] after;
        /** Weight, from 0 to below 1, of the logit after each pixel. */
        final float[] weight;
        /** The first pixel of each run between the same two logits, then the number of pixels. */
        final int[] start;

        Axis(int low, int full, int pixels, boolean alignCorners) {
            before = new int[pixels];
            after = new int[pixels];
            weight = new float[pixels];
            int[] first = new int[pixels + 1];
            int runs = 0;
            long previous = -2;
            for (int i = 0; i < pixels; i++) {
                long sample = nearest(i, full, pixels);
                long numerator = alignCorners ? sample * (low - 1) : (2 * sample + 1) * low - full;
                long denominator = alignCorners ? Math.max(full - 1, 1) : 2L * full;
                long cell = Math.floorDiv(numerator, denominator);
                weight[i] = (float) ((double) Math.floorMod(numerator, denominator) / denominator);
                before[i] = (int) Math.min(Math.max(cell, 0), low - 1);
                after[i] = (int) Math.min(cell + 1, low - 1);
                if (cell != previous) {
                    first[runs++] = i;
                }
                previous = cell;
            }
            first[runs] = pixels;
            start = java.util.Arrays.copyOf(first, runs + 1);
        }
    }

    private boolean isSafe() {
        for (float value : logits) {
            if (!(Math.abs(value) <= SAFE)) {
                return false;
            }
        }
        return true;
    }

    /** Labels from finite logits, interpolated only where the corners of a cell differ. */
    private int[] sparse() {
        int pixelCols = cols.weight.length;
        int[] labels = new int[rows.weight.length * pixelCols];
        int[] winner = winners();
        int[] candidates = new int[classes];
        for (int i = 0; i + 1 < rows.start.length; i++) {
            int top = rows.start[i];
            int bottom = rows.start[i + 1];
            for (int j = 0; j + 1 < cols.start.length; j++) {
                int left = cols.start[j];
                int right = cols.start[j + 1];
                int a = rows.before[top] * width + cols.before[left];
                int b = rows.before[top] * width + cols.after[left];
                int c = rows.after[top] * width + cols.before[left];
                int d = rows.after[top] * width + cols.after[left];
                int one = winner[a];
                int other = winner[b] != one ? winner[b] : winner[c] != one ? winner[c] : winner[d];
                int count = 0;
                if (other == one) {
                    candidates[count++] = one;
                } else {
                    for (int k = 0; k < classes; k++) {
                        if (mayWin(k, one, a, b, c, d) && mayWin(k, other, a, b, c, d)) {
                            candidates[count++] = k;
                        }
                    }
                }
                for (int y = top; y < bottom; y++) {
                    for (int x = left; x < right; x++) {
                        labels[y * pixelCols + x] =
                                count == 1 ? candidates[0] : best(candidates, count, y, x, a, b, c, d);
                    }
                }
            }
        }
        return labels;
    }

    /** The class with the largest logit at each position. */
    private int[] winners() {
        int[] winner = new int[plane];
        for (int k = 1; k < classes; k++) {
            for (int p = 0; p < plane; p++) {
                if (logits[k * plane + p] > logits[winner[p] * plane + p]) {
                    winner[p] = k;
                }
            }
        }
        return winner;
    }

    /** Whether another class does not beat {@code k} at all four corners. */
    private boolean mayWin(int k, int other, int a, int b, int c, int d) {
        int own = k * plane;
        int its = other * plane;
        return logits[own + a] >= logits[its + a] || logits[own + b] >= logits[its + b]
                || logits[own + c] >= logits[its + c] || logits[own + d] >= logits[its + d];
    }

    /** The candidate with the largest interpolated logit at a pixel. */
    private int best(int[] candidates, int count, int y, int x, int a, int b, int c, int d) {
        double down = rows.weight[y];
        double right = cols.weight[x];
        float wa = (float) ((1 - down) * (1 - right));
        float wb = (float) ((1 - down) * right);
        float wc = (float) (down * (1 - right));
        float wd = (float) (down * right);
        int best = 0;
        float largest = Float.NEGATIVE_INFINITY;
        for (int i = 0; i < count; i++) {
            int at = candidates[i] * plane;
            float value = wa * logits[at + a] + wb * logits[at + b] + wc * logits[at + c]
                    + wd * logits[at + d];
            if (value > largest) {
                largest = value;
                best = candidates[i];
            }
        }
        return best;
    }

    /** Labels from any logits, also infinite ones and NaN: every class at every pixel. */
    private int[] dense() {
        int pixelCols = cols.weight.length;
        int[] labels = new int[rows.weight.length * pixelCols];
        for (int y = 0; y < rows.weight.length; y++) {
            for (int x = 0; x < pixelCols; x++) {
                int best = 0;
                float largest = upsampled(0, y, x);
                for (int k = 1; k < classes && !Float.isNaN(largest); k++) {
                    float value = upsampled(k, y, x);
                    if (value > largest || Float.isNaN(value)) {
                        largest = value;
                        best = k;
                    }
                }
                labels[y * pixelCols + x] = best;
            }
        }
        return labels;
    }

    private float upsampled(int k, int y, int x) {
        float above = inRow(k, rows.before[y], x);
        return rows.weight[y] == 0 ? above : mix(above, inRow(k, rows.after[y], x), rows.weight[y]);
    }

    private float inRow(int k, int row, int x) {
        int at = k * plane + row * width;
        float left = logits[at + cols.before[x]];
        return cols.weight[x] == 0 ? left : mix(left, logits[at + cols.after[x]], cols.weight[x]);
    }

    private static float mix(float a, float b, float weight) {
        return (1 - weight) * a + weight * b;
    }
}
