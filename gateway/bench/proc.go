package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Processes are the roots of a target's process trees. None: nothing is known of what it costs.
type Processes []int

// usage is what process trees use at one moment.
type usage struct {
	CPU         time.Duration // user and system time, of ended and waited-for children too; in steps of 10 ms for each process
	PSS         int64         // bytes of memory, shared pages in parts; without what the kernel holds for sockets
	Descriptors int
}

// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture that Go knows.
const clockTick = 10 * time.Millisecond

// usage adds up the CPU time of all trees.
func (p Processes) usage() (usage, error) {
	_, u, err := p.walk()
	return u, err
}

// withMine tells this process's besides, where it tells anything.
func (p Processes) withMine() (target, mine usage, err error) {
	if len(p) == 0 {
		return target, mine, nil
	}
	if target, err = p.usage(); err == nil {
		mine, err = Processes{os.Getpid()}.usage()
	}
	return target, mine, err
}

// usageWithMemory also adds up memory and descriptors, which takes a while; other users' processes tell them to root only.
func (p Processes) usageWithMemory() (usage, error) {
	tree, u, err := p.walk()
	for _, pid := range tree {
		dir := "/proc/" + strconv.Itoa(pid)
		rollup, rollupErr := os.ReadFile(dir + "/smaps_rollup")
		descriptors, fdErr := os.ReadDir(dir + "/fd")
		if gone(rollupErr) || gone(fdErr) {
			continue
		}
		pss, pssErr := parsePSS(rollup)
		err = errors.Join(err, rollupErr, fdErr, pssErr)
		u.PSS += pss
		u.Descriptors += len(descriptors)
	}
	if err != nil {
		return u, fmt.Errorf("read memory and descriptors of processes %v: %w", p, err)
	}
	return u, nil
}

// gone tells the errors of a process that has ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process")
}

func (p Processes) walk() (tree []int, u usage, err error) {
	if len(p) == 0 {
		return nil, u, nil
	}
	all, err := readStats()
	if err != nil {
		return nil, u, err
	}
	for _, root := range p {
		if _, ok := all[root]; !ok {
			return nil, u, fmt.Errorf("there is no process %d", root)
		}
	}
	for pid, s := range all {
		if p.contain(all, pid) {
			tree = append(tree, pid)
			u.CPU += s.cpu
		}
	}
	return tree, u, nil
}

// contain tells whether a process is one of the roots or descends from one.
func (p Processes) contain(all map[int]stat, pid int) bool {
	for range maxDepth {
		if slices.Contains(p, pid) {
			return true
		}
		s, ok := all[pid]
		if !ok {
			return false
		}
		pid = s.parent
	}
	return false
}

// maxDepth bounds the way up: processes come and go while they are read, and a number may be given anew.
const maxDepth = 64

// stat is what is used of /proc/PID/stat.
type stat struct {
	parent int
	cpu    time.Duration
}

func readStats() (map[int]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return nil, errors.New("/proc tells of no processes; CPU and memory can be counted on Linux only")
	}
	all := make(map[int]stat, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if all[pid], err = parseStat(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return all, nil
}

// parseStat reads fields 4 and 14 to 17 of proc_pid_stat(5). The name in parentheses may hold anything, parentheses too.
func parseStat(text string) (stat, error) {
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) < 15 {
		return stat{}, fmt.Errorf("%q is no process's stat", text)
	}
	parent, err := strconv.Atoi(fields[1])
	var ticks int64
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, fieldErr := strconv.ParseInt(field, 10, 64)
		err = errors.Join(err, fieldErr)
		ticks += n
	}
	return stat{parent, time.Duration(ticks) * clockTick}, err
}

// parsePSS reads a line such as "Pss:    1234 kB" of /proc/PID/smaps_rollup, in bytes. A kernel thread or zombie has none.
func parsePSS(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && fields[0] == "Pss:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, nil
}
