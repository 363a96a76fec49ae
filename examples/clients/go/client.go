// Segment an image on a segrt server: go run client.go http://localhost:8080 road.png result.jpg
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sort"
)

type answer struct {
	ErrorCode int
	ErrorMsg  string
	Result    struct {
		LabelMap []int
		Size     [2]int
		Image    []byte // encoding/json decodes base64
		Classes  []struct {
			ID   int
			Name string
		}
	}
}

func main() {
	log.SetFlags(0)
	server, picture, output := os.Args[1], os.Args[2], os.Args[3]
	photo, err := os.ReadFile(picture)
	check(err)
	request, err := json.Marshal(map[string]any{"image": photo, "visualize": true})
	check(err)
	url := server + "/semantic-segmentation"
	reply, err := http.Post(url, "application/json", bytes.NewReader(request))
	check(err)
	defer reply.Body.Close()
	var got answer
	check(json.NewDecoder(reply.Body).Decode(&got))
	if got.ErrorCode != 0 {
		log.Fatal(got.ErrorMsg)
	}

	counts := map[int]int{}
	for _, label := range got.Result.LabelMap {
		counts[label]++
	}
	classes := got.Result.Classes
	sort.SliceStable(classes, func(i, j int) bool {
		return counts[classes[i].ID] > counts[classes[j].ID]
	})
	height, width := got.Result.Size[0], got.Result.Size[1]
	fmt.Printf("%d x %d\n", width, height)
	for _, class := range classes {
		if count := counts[class.ID]; count > 0 {
			fmt.Printf("%6.2f %%  %s\n", 100*float64(count)/float64(width*height), class.Name)
		}
	}
	check(os.WriteFile(output, got.Result.Image, 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
