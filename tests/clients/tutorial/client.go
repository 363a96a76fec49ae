// The request of the tutorial's Go client: JSON without a Content-Type.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// The tutorial declares labelMap as a list of objects, which PaddleX does not send either.
type answer struct {
	Result struct {
		Image    string `json:"image"`
		LabelMap []int  `json:"labelMap"`
	} `json:"result"`
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, picture, output string) error {
	file, err := os.ReadFile(picture)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"image": base64.StdEncoding.EncodeToString(file)})
	if err != nil {
		return err
	}
	request, err := http.NewRequest("POST", address+"/semantic-segmentation", bytes.NewBuffer(body))
	if err != nil {
		return err
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var found answer
	if err := json.Unmarshal(text, &found); err != nil {
		return err
	}
	image, err := base64.StdEncoding.DecodeString(found.Result.Image)
	if err != nil {
		return err
	}
	fmt.Printf("%d labels\n", len(found.Result.LabelMap))
	return os.WriteFile(output, image, 0o644)
}
