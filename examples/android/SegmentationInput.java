package segrt;

/**
 * From the pixels of an image to the input of a network, with the values that segrt computes.
 *
 * <p>The image is resized as OpenCV's INTER_LINEAR does it with 8-bit images, bit by bit, and
 * normalised: the metadata's Resize with "interp": "LINEAR", and Normalize. Android's own scaling of
 * bitmaps gives other pixels.
 *
 * <pre>{@code
 * int[] pixels = new int[width * height];
 * bitmap.getPixels(pixels, 0, width, 0, 0, width, height);
 * double[] half = {0.5, 0.5, 0.5};
 * float[] input = SegmentationInput.of(pixels, height, width, 360, 480, 1 / 255.0, half, half, true);
 * }</pre>
 */
public final class SegmentationInput {
    private SegmentationInput() {}

    /**
     * Resizes and normalises an image.
     *
     * @param argb height x width pixels, as of Bitmap.getPixels; the highest 8 bits are ignored.
     * @param height height of the image.
     * @param width its width.
     * @param newHeight height of the network's input.
     * @param newWidth its width.
     * @param scale {@code scale} of Normalize; 1 / 255.0 if the metadata lack it.
     * @param mean {@code mean} of Normalize, by channel; 0.5 each if the metadata lack it.
     * @param std {@code std}, likewise.
     * @param toRgb {@code to_rgb}: whether the channels are R, G, B rather than B, G, R; true if the
     *     metadata lack it.
     * @return 3 x newHeight x newWidth values, row by row.
     * @throws IllegalArgumentException if there are not height x width pixels, or a size is not
     *     positive.
     */
    public static float[] of(
            int[] argb, int height, int width, int newHeight, int newWidth,
            double scale, double[] mean, double[] std, boolean toRgb) {
        if (Math.min(Math.min(height, width), Math.min(newHeight, newWidth)) < 1
                || argb.length != (long) height * width) {
            throw new IllegalArgumentException(
                    argb.length + " pixels are not " + height + " x " + width);
        }
        Axis rows = new Axis(height, newHeight, false);
        Axis cols = new Axis(width, newWidth, true);
        float[] out = new float[Math.multiplyExact(3, Math.multiplyExact(newHeight, newWidth))];
        int at = 0;
        for (int channel = 0; channel < 3; channel++) {
            int shift = toRgb ? 16 - 8 * channel : 8 * channel;
            float[] table = new float[256];
            for (int value = 0; value < 256; value++) {
                table[value] = (float) ((value * scale - mean[channel]) / std[channel]);
            }
            for (int y = 0; y < newHeight; y++) {
                int upper = rows.before[y] * width;
                int lower = rows.after[y] * width;
                for (int x = 0; x < newWidth; x++) {
                    int above = cols.mix(argb, upper, x, shift) >> 4;
                    int below = cols.mix(argb, lower, x, shift) >> 4;
                    int value = (rows.first[y] * above >> 16) + (rows.second[y] * below >> 16);
                    out[at++] = table[value + 2 >> 2];
                }
            }
        }
        return out;
    }

    /** One axis of the resize: the two pixels that each new one lies between, and their weights. */
    private static final class Axis {
        final int[] before;
        final int[] after;
        /** Weight of each in 1/2048. */
        final int[] first;
        final int[] second;

        /** OpenCV sets the weights at the edges of rows to 0 and 1, but not those of columns. */
        Axis(int pixels, int newPixels, boolean snap) {
            before = new int[newPixels];
            after = new int[newPixels];
            first = new int[newPixels];
            second = new int[newPixels];
            double scale = 1 / ((double) newPixels / pixels);
            for (int i = 0; i < newPixels; i++) {
                float position = (float) ((i + 0.5) * scale - 0.5);
                int cell = (int) Math.floor(position);
                float weight = position - cell;
                if (snap && (cell < 0 || cell >= pixels - 1)) {
                    weight = 0;
                    cell = cell < 0 ? 0 : pixels - 1;
                }
                before[i] = Math.min(Math.max(cell, 0), pixels - 1);
                after[i] = Math.min(cell + 1, pixels - 1);
                first[i] = (int) Math.rint((1 - weight) * 2048);
                second[i] = (int) Math.rint(weight * 2048);
            }
        }

        /** A channel between two pixels of a row, times 2048. */
        int mix(int[] argb, int row, int x, int shift) {
            return first[x] * (argb[row + before[x]] >> shift & 255)
                    + second[x] * (argb[row + after[x]] >> shift & 255);
        }
    }
}
