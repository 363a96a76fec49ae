<?php
// The request of the tutorial's PHP client: JSON, with cURL.
[, $address, $picture, $output] = $argv;
$curl = curl_init("$address/semantic-segmentation");
curl_setopt_array($curl, [
    CURLOPT_POST => true,
    CURLOPT_POSTFIELDS => json_encode(["image" => base64_encode(file_get_contents($picture))]),
    CURLOPT_HTTPHEADER => ["Content-Type: application/json"],
    CURLOPT_RETURNTRANSFER => true,
]);
$result = json_decode(curl_exec($curl), true)["result"];
file_put_contents($output, base64_decode($result["image"]));
echo count($result["labelMap"]), " labels\n";
