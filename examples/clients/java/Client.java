// Segment an image on a segrt server, with JDK 11 or later and Gson:
//   java -cp /usr/share/java/gson.jar Client.java http://localhost:8080 road.png result.jpg

import com.google.gson.Gson;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Map;

public class Client {
    static class Answer {
        int errorCode;
        String errorMsg;
        Result result;
    }

    static class Result {
        int[] labelMap;
        int[] size;
        String image;
        List<SegClass> classes;
    }

    static class SegClass {
        int id;
        String name;
    }

    public static void main(String[] args) throws Exception {
        String server = args[0];
        byte[] photo = Files.readAllBytes(Path.of(args[1]));
        Gson gson = new Gson();
        String image = Base64.getEncoder().encodeToString(photo);
        String body = gson.toJson(Map.of("image", image, "visualize", true));
        HttpRequest request = HttpRequest.newBuilder(URI.create(server + "/semantic-segmentation"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        // By default, Java requests an upgrade to HTTP/2 from plain-text servers each time.
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        String reply = client.send(request, HttpResponse.BodyHandlers.ofString()).body();
        Answer answer = gson.fromJson(reply, Answer.class);
        if (answer.errorCode != 0) {
            System.err.println(answer.errorMsg);
            System.exit(1);
        }

        Result result = answer.result;
        int most = result.classes.stream().mapToInt(c -> c.id).max().orElse(0);
        int[] counts = new int[most + 1];
        for (int label : result.labelMap) counts[label]++;
        int height = result.size[0], width = result.size[1];
        System.out.printf("%d x %d%n", width, height);
        result.classes.sort(Comparator.comparingInt(c -> -counts[c.id]));
        for (SegClass one : result.classes) {
            if (counts[one.id] == 0) continue;
            double percent = 100.0 * counts[one.id] / (width * height);
            System.out.printf(Locale.ROOT, "%6.2f %%  %s%n", percent, one.name);
        }
        Files.write(Path.of(args[2]), Base64.getDecoder().decode(result.image));
    }
}
