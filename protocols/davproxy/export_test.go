package davproxy

import "time"

// Times gives clients other times than ours: for a header, until the next request, and of that with a goroutine.
func (o *Options) Times(header, keep, park time.Duration) { o.times = times{header, keep, park} }
