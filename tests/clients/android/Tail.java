import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.IOException;
import segrt.SegmentationTail;

/** Labels each case of a file: eight integers, then logits; writes the labels to another. */
public final class Tail {
    public static void main(String[] arguments) throws IOException {
        try (DataInputStream in = new DataInputStream(
                        new BufferedInputStream(new FileInputStream(arguments[0])));
                DataOutputStream out = new DataOutputStream(
                        new BufferedOutputStream(new FileOutputStream(arguments[1])))) {
            for (int cases = in.readInt(); cases > 0; cases--) {
                int[] sizes = new int[8];
                for (int i = 0; i < sizes.length; i++) {
                    sizes[i] = in.readInt();
                }
                float[] logits = new float[sizes[0] * sizes[1] * sizes[2]];
                for (int i = 0; i < logits.length; i++) {
                    logits[i] = in.readFloat();
                }
                int[] labels = SegmentationTail.labels(
                        logits, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
                        sizes[6], sizes[7] == 1);
                for (int label : labels) {
                    out.writeInt(label);
                }
            }
        }
    }
}
