// A WebTransport client and server made with webtransport-go alone; it shares no line with this project.
//
// Usage: `webtransport_go client URL TASK`, where TASK is `echo` or `resets`, or
// `webtransport_go server CERTIFICATE KEY`, which listens on a port of its own and does the task that the path names.
// The two commands about certificates of clients are in certificates.go.
// A JSON line is printed for each event that a test waits for; a client's exit code is 0 only when its task is complete.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

const (
	timeout = 20 * time.Second
	// streams of each kind that a side opens and resets
	streams = 40
	// what is added to a number for the code of a bidirectional stream
	bidirectional = 1000
)

type fields map[string]any

var printing sync.Mutex

func report(event string, values fields) {
	line := fields{"event": event}
	for name, value := range values {
		line[name] = value
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(string(encoded))
}

// echo has a little and a megabyte echoed on streams of either kind, and a datagram.
func echo(ctx context.Context, session *webtransport.Session) error {
	for _, size := range []int{0, 1, 5000, 1 << 20} {
		data := bytes.Repeat([]byte("0123456789abcdef_"), size/17+1)[:size]
		stream, err := session.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		go func() {
			stream.Write(data)
			stream.Close()
		}()
		back, err := io.ReadAll(stream)
		if err != nil {
			return err
		}
		report("bidi", fields{"size": size, "same": bytes.Equal(back, data)})
		outgoing, err := session.OpenUniStreamSync(ctx)
		if err != nil {
			return err
		}
		go func() {
			outgoing.Write(data)
			outgoing.Close()
		}()
		incoming, err := session.AcceptUniStream(ctx)
		if err != nil {
			return err
		}
		if back, err = io.ReadAll(incoming); err != nil {
			return err
		}
		report("uni", fields{"size": size, "same": bytes.Equal(back, data)})
	}
	if err := session.SendDatagram([]byte("datagram")); err != nil {
		return err
	}
	back, err := session.ReceiveDatagram(ctx)
	report("datagram", fields{"same": bytes.Equal(back, []byte("datagram"))})
	return err
}

// answer sends back what arrives on the streams of a session, and its datagrams.
func answer(ctx context.Context, session *webtransport.Session) error {
	go func() {
		for {
			incoming, err := session.AcceptUniStream(ctx)
			if err != nil {
				return
			}
			go func() {
				data, err := io.ReadAll(incoming)
				if err != nil {
					return
				}
				if outgoing, err := session.OpenUniStreamSync(ctx); err == nil {
					outgoing.Write(data)
					outgoing.Close()
				}
			}()
		}
	}()
	go func() {
		for {
			data, err := session.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			session.SendDatagram(data)
		}
	}()
	for {
		stream, err := session.AcceptStream(ctx)
		if err != nil {
			return nil
		}
		go func() {
			io.Copy(stream, stream)
			stream.Close()
		}()
	}
}

// codeOf reads to the end of a stream and returns the code of its reset, or -1 when it had none.
func codeOf(stream io.Reader) int {
	_, err := io.Copy(io.Discard, stream)
	var reset *webtransport.StreamError
	if errors.As(err, &reset) && reset.Remote {
		return int(reset.ErrorCode)
	}
	report("no reset", fields{"error": fmt.Sprint(err)})
	return -1
}

type writer interface {
	io.Writer
	CancelWrite(webtransport.StreamErrorCode)
}

// giveUp resets a stream: before anything is written on it, with a little, or with many packets on their way.
func giveUp(stream writer, number int, code int) {
	if size := []int{0, 10, 20000}[number%3]; size > 0 {
		stream.Write(make([]byte, size))
	}
	stream.CancelWrite(webtransport.StreamErrorCode(code))
}

// resets opens streams of both kinds and resets them at once, while the peer does the same. It reports the codes that
// arrive: on the peer's streams, and in its answers on our bidirectional ones, where each side gives the code back.
func resets(ctx context.Context, session *webtransport.Session) error {
	var group sync.WaitGroup
	var lock sync.Mutex
	received := map[string][]int{"uni": {}, "bidi": {}, "answers": {}}
	take := func(kind string, code int) {
		lock.Lock()
		defer lock.Unlock()
		received[kind] = append(received[kind], code)
	}
	failures := make(chan error, 3)
	group.Go(func() {
		for range streams {
			stream, err := session.AcceptUniStream(ctx)
			if err != nil {
				failures <- err
				return
			}
			group.Go(func() { take("uni", codeOf(stream)) })
		}
	})
	group.Go(func() {
		for range streams {
			stream, err := session.AcceptStream(ctx)
			if err != nil {
				failures <- err
				return
			}
			group.Go(func() {
				code := codeOf(stream)
				stream.CancelWrite(webtransport.StreamErrorCode(max(code, 0)))
				take("bidi", code)
			})
		}
	})
	group.Go(func() {
		for number := range streams {
			uni, err := session.OpenUniStreamSync(ctx)
			if err != nil {
				failures <- err
				return
			}
			giveUp(uni, number, number)
			bidi, err := session.OpenStreamSync(ctx)
			if err != nil {
				failures <- err
				return
			}
			giveUp(bidi, number, bidirectional+number)
			group.Go(func() { take("answers", codeOf(bidi)) })
		}
	})
	group.Wait()
	values := fields{}
	for kind, codes := range received {
		slices.Sort(codes)
		values[kind] = codes
	}
	report("resets", values)
	close(failures)
	return <-failures
}

func quicConfig() *quic.Config {
	return &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}
}

func client(url string, task string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	transport := webtransport.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig:      quicConfig(),
	}
	defer transport.Close()
	_, session, err := transport.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	report("ready", nil)
	run, known := map[string]func(context.Context, *webtransport.Session) error{"echo": echo, "resets": resets}[task]
	if !known {
		return fmt.Errorf("no task %q", task)
	}
	if err := run(ctx, session); err != nil {
		return err
	}
	report("done", nil)
	// How the session ended is told by what waits on it.
	_, err = session.AcceptStream(ctx)
	var end *webtransport.SessionError
	if !errors.As(err, &end) {
		return fmt.Errorf("the session did not end: %w", err)
	}
	report("closed", fields{"code": end.ErrorCode, "reason": end.Message})
	return nil
}

func server(certificate string, key string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	server := webtransport.Server{
		H3: &http3.Server{
			TLSConfig:  http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
			QUICConfig: quicConfig(),
			Handler:    mux,
		},
		CheckOrigin: func(*http.Request) bool { return true },
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	serve := func(path string, run func(context.Context, *webtransport.Session) error) {
		mux.HandleFunc(path, func(response http.ResponseWriter, request *http.Request) {
			session, err := server.Upgrade(response, request)
			if err != nil {
				report("refused", fields{"error": err.Error()})
				response.WriteHeader(http.StatusBadRequest)
				return
			}
			report("session", fields{"path": path})
			if err := run(session.Context(), session); err != nil {
				report("failed", fields{"error": err.Error()})
			}
			<-session.Context().Done()
			report("closed", fields{"path": path})
		})
	}
	serve("/echo", answer)
	serve("/resets", resets)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	report("listening", fields{"port": socket.LocalAddr().(*net.UDPAddr).Port})
	return server.Serve(socket)
}

func main() {
	var err error
	switch arguments := strings.Join(os.Args[1:], " "); {
	case len(os.Args) == 4 && os.Args[1] == "client":
		err = client(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "server":
		err = server(os.Args[2], os.Args[3])
	case len(os.Args) == 5 && os.Args[1] == "certificate-client":
		err = certificateClient(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "certificate-server":
		err = certificateServer(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("no such command: %q", arguments)
	}
	if err != nil {
		report("error", fields{"text": err.Error()})
		os.Exit(1)
	}
}
