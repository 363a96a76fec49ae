<?php
// Segment an image on a segrt server: php client.php http://localhost:8080 road.png result.jpg
ini_set('memory_limit', '1G');  // the label map of a large image is a long list

[, $server, $picture, $output] = $argv;
$image = base64_encode(file_get_contents($picture));
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => 'Content-Type: application/json',
    'content' => json_encode(['image' => $image, 'visualize' => true]),
    'ignore_errors' => true,  // error responses have a body too
]]);
$body = file_get_contents("$server/semantic-segmentation", false, $context);
if ($body === false) {
    exit(1);  // PHP has printed the reason
}
$answer = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
if ($answer['errorCode'] !== 0) {
    fwrite(STDERR, $answer['errorMsg'] . "\n");
    exit(1);
}

$result = $answer['result'];
$names = array_column($result['classes'], 'name', 'id');
$counts = array_count_values($result['labelMap']);
uksort($counts, fn($a, $b) => [$counts[$b], $a] <=> [$counts[$a], $b]);
[$height, $width] = $result['size'];
echo "$width x $height\n";
foreach ($counts as $label => $count) {
    printf("%6.2f %%  %s\n", 100 * $count / ($width * $height), $names[$label]);
}
file_put_contents($output, base64_decode($result['image']));
