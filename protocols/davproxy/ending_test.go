package davproxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// An ending is a context as package context has them: whatever is made of it ends with it, for its reason.
func TestEnding(t *testing.T) {
	revoked, later := errors.New("revoked"), errors.New("later")
	synctest.Test(t, func(t *testing.T) {
		ctx := new(ending)
		var did []string
		do := func(what string) func() { return func() { did = append(did, what) } }
		child, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		grandchild, cancel := context.WithCancel(context.WithValue(child, connKey{}, "value"))
		defer cancel()
		ended, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		calledOff := ctx.AfterFunc(do("called off"))
		if !calledOff() || calledOff() {
			t.Error("what was called off can be called off once")
		}
		time.Sleep(time.Minute)
		if ctx.Err() != nil || context.Cause(ctx) != nil || grandchild.Err() != nil || ended.Err() != context.DeadlineExceeded {
			t.Errorf("before: %v, %v, %v, %v", ctx.Err(), context.Cause(ctx), grandchild.Err(), ended.Err())
		}
		select {
		case <-ctx.Done():
			t.Error("it is done")
		default:
		}
		late := context.AfterFunc(ctx, do("done"))
		ctx.end(revoked)
		ctx.end(later)
		<-ctx.Done()
		<-grandchild.Done()
		synctest.Wait()
		if context.Cause(ctx) != revoked || context.Cause(grandchild) != revoked || ended.Err() != context.DeadlineExceeded {
			t.Errorf("the causes are %v, %v, %v", context.Cause(ctx), context.Cause(grandchild), ended.Err())
		}
		if late() || len(did) != 1 || did[0] != "done" {
			t.Errorf("did %q", did)
		}
		if ctx.AfterFunc(do("at once"))() {
			t.Error("what is done at once can't be called off")
		}
		synctest.Wait()
		if len(did) != 2 {
			t.Errorf("did %q", did)
		}
		unasked := new(ending)
		unasked.end(revoked)
		<-unasked.Done()
	})
}
