// The peer that drives go-runc, in the version that Debian packages.
//
// Reads lines "CONCURRENCY COUNT OPERATION ARGUMENT..." and answers each with "WALL CPU": seconds for all COUNT
// operations, and the seconds that this process itself has computed meanwhile.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var background = context.Background()

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gorunc:", err)
		os.Exit(1)
	}
}

func cpu() float64 {
	var used syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

// operation returns what is done once, for the words after CONCURRENCY and COUNT.
func operation(words []string) func(number int64) {
	switch words[0] {
	case "start": // of any program that ends with 0
		client := &runc.Runc{Command: words[1]}
		return func(int64) { check(client.Start(background, "none")) }
	case "state":
		client := &runc.Runc{Root: words[1]}
		return func(int64) {
			_, err := client.State(background, words[2])
			check(err)
		}
	case "list":
		client := &runc.Runc{Root: words[1]}
		return func(int64) {
			_, err := client.List(background)
			check(err)
		}
	case "exec":
		return execute(words[1], words[2])
	case "cycle":
		return cycle(words[1], words[2])
	case "events":
		return events(words[1], words[2])
	case "decode":
		return decode(words[1])
	case "bytes":
		return transfer(words[1], words[2])
	}
	panic("no such operation: " + words[0])
}

func execute(root, id string) func(int64) {
	client := &runc.Runc{Root: root}
	process := specs.Process{Args: []string{"/bin/true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}
	return func(int64) {
		null, err := runc.NewNullIO()
		check(err)
		check(client.Exec(background, id, process, &runc.ExecOpts{IO: null}))
		check(null.Close())
	}
}

// cycle creates, starts, waits for and deletes. go-runc has no wait for a container, so the end of its output tells.
func cycle(root, bundle string) func(int64) {
	client := &runc.Runc{Root: root}
	return func(number int64) {
		id := fmt.Sprintf("go%d-%d", os.Getpid(), number)
		pipes, err := runc.NewPipeIO(0, 0, runc.IOOpt(func(option *runc.IOOption) {
			option.OpenStdin, option.OpenStderr = false, false
		}))
		check(err)
		check(client.Create(background, id, bundle, &runc.CreateOpts{IO: pipes}))
		check(client.Start(background, id))
		_, err = io.Copy(io.Discard, pipes.Stdout())
		check(err)
		for client.Delete(background, id, nil) != nil {
		}
		pipes.Close()
	}
}

// events takes so many events; then it ends the program, for go-runc drops what is in the pipe when that has ended.
func events(command, count string) func(int64) {
	client := &runc.Runc{Command: command, PdeathSignal: syscall.SIGKILL} // for what is killed while we exit
	wanted, err := strconv.Atoi(count)
	check(err)
	return func(int64) {
		ending, end := context.WithCancel(background)
		stream, err := client.Events(ending, "none", time.Second)
		check(err)
		for i := 0; i < wanted; i++ {
			event := <-stream
			check(event.Err)
		}
		end()
		go func() { // it reports errors for ever
			for range stream {
			}
		}()
	}
}

func decode(path string) func(int64) {
	data, err := os.ReadFile(path)
	check(err)
	return func(int64) {
		decoder := json.NewDecoder(bytes.NewReader(data))
		for {
			var event runc.Event
			err := decoder.Decode(&event)
			if err == io.EOF {
				return
			}
			check(err)
		}
	}
}

// transfer reads all that a container writes.
func transfer(root, bundle string) func(int64) {
	client := &runc.Runc{Root: root}
	return func(number int64) {
		id := fmt.Sprintf("go%d-%d", os.Getpid(), number)
		pipes, err := runc.NewPipeIO(0, 0)
		check(err)
		check(client.Create(background, id, bundle, &runc.CreateOpts{IO: pipes}))
		check(client.Start(background, id))
		begin := time.Now()
		_, err = io.Copy(io.Discard, pipes.Stdout())
		check(err)
		elapsed += time.Since(begin).Seconds()
		check(client.Delete(background, id, &runc.DeleteOpts{Force: true}))
		pipes.Close()
	}
}

// elapsed is what counts of an operation that has a part that doesn't; else it stays zero.
var elapsed float64

func main() {
	lines := bufio.NewScanner(os.Stdin)
	var number int64
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		concurrency, err := strconv.Atoi(words[0])
		check(err)
		count, err := strconv.ParseInt(words[1], 10, 64)
		check(err)
		once := operation(words[2:])
		elapsed = 0
		var group sync.WaitGroup
		begin, used := time.Now(), cpu()
		for i := 0; i < concurrency; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for atomic.AddInt64(&count, -1) >= 0 {
					once(atomic.AddInt64(&number, 1))
				}
			}()
		}
		group.Wait()
		wall := time.Since(begin).Seconds()
		if elapsed > 0 {
			wall = elapsed
		}
		fmt.Printf("%.9f %.9f\n", wall, cpu()-used)
	}
}
