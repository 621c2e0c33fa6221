// Which field of a struct encoding/json takes a key for, asked of the decoder itself.
//
// Reads {"names": [...], "keys": [...]} and writes, for each key, the name of the field that an object with just this
// key has set; "" for none.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
)

type question struct {
	Names []string `json:"names"`
	Keys  []string `json:"keys"`
}

func main() {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	var fields []reflect.StructField
	for number, name := range asked.Names {
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("F%d", number),
			Type: reflect.TypeOf(false),
			Tag:  reflect.StructTag(fmt.Sprintf(`json:"%s"`, name)),
		})
	}
	structure := reflect.StructOf(fields)
	answers := make([]string, len(asked.Keys))
	for number, key := range asked.Keys {
		document, err := json.Marshal(map[string]bool{key: true})
		if err != nil {
			panic(err)
		}
		value := reflect.New(structure)
		if err := json.Unmarshal(document, value.Interface()); err != nil {
			panic(err)
		}
		for field, name := range asked.Names {
			if value.Elem().Field(field).Bool() {
				answers[number] += name
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
