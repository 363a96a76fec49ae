import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import segrt.SegmentationInput;

/** Prepares each image of a file: five integers, then pixels; writes the inputs to another. */
public final class Input {
    private static final double[] MEAN = {0.485, 0.456, 0.406};
    private static final double[] STD = {0.229, 0.224, 0.225};

    public static void main(String[] arguments) throws IOException {
        try (DataInputStream in = new DataInputStream(
                        new BufferedInputStream(new FileInputStream(arguments[0])));
                DataOutputStream out = new DataOutputStream(
                        new BufferedOutputStream(new FileOutputStream(arguments[1])))) {
            for (int images = in.readInt(); images > 0; images--) {
                int[] sizes = new int[5];
                for (int i = 0; i < sizes.length; i++) {
                    sizes[i] = in.readInt();
                }
                int[] pixels = new int[sizes[0] * sizes[1]];
                for (int i = 0; i < pixels.length; i++) {
                    pixels[i] = in.readInt();
                }
                float[] input = SegmentationInput.of(
                        pixels, sizes[0], sizes[1], sizes[2], sizes[3], 1 / 255.0, MEAN, STD,
                        sizes[4] == 1);
                for (float value : input) {
                    out.writeFloat(value);
                }
            }
        }
    }
}
