// Segment an image on a segrt server, with Newtonsoft.Json, on .NET or Mono:
//   mcs -r:System.Net.Http.dll -r:Newtonsoft.Json.dll Client.cs
//   mono Client.exe http://localhost:8080 road.png result.jpg
using System;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Text;
using System.Threading.Tasks;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

static class Client
{
    static int Main(string[] args) => Run(args).GetAwaiter().GetResult();

    static async Task<int> Run(string[] args)
    {
        string server = args[0], picture = args[1], output = args[2];
        string image = Convert.ToBase64String(File.ReadAllBytes(picture));
        string request = JsonConvert.SerializeObject(new { image, visualize = true });
        var content = new StringContent(request, Encoding.UTF8, "application/json");
        JObject answer;
        using (var client = new HttpClient())
        using (var reply = await client.PostAsync(server + "/semantic-segmentation", content))
            answer = JObject.Parse(await reply.Content.ReadAsStringAsync());
        if ((int)answer["errorCode"] != 0)
        {
            Console.Error.WriteLine((string)answer["errorMsg"]);
            return 1;
        }

        var result = answer["result"];
        int height = (int)result["size"][0], width = (int)result["size"][1];
        var names = result["classes"].ToDictionary(c => (int)c["id"], c => (string)c["name"]);
        Console.WriteLine($"{width} x {height}");
        var classes = result["labelMap"].ToObject<int[]>().GroupBy(label => label)
            .OrderByDescending(group => group.Count()).ThenBy(group => group.Key);
        foreach (var group in classes)
        {
            double percent = 100.0 * group.Count() / (width * height);
            Console.WriteLine(string.Format(
                CultureInfo.InvariantCulture, "{0,6:F2} %  {1}", percent, names[group.Key]));
        }
        File.WriteAllBytes(output, Convert.FromBase64String((string)result["image"]));
        return 0;
    }
}
