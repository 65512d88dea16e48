package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

// The ALPN of moq-lite-03, in which neither side says anything first.
const silent = "moq-lite-03"

// certificateClient connects twice to a server, over raw QUIC or WebTransport, and takes session tickets along. It
// shows the certificate if a server asks for one; "-" is none. It reports how each connection or request ended.
//
// Usage: `webtransport_go certificate-client URL CERTIFICATE KEY`.
func certificateClient(target string, certificate string, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	where, err := url.Parse(target)
	if err != nil {
		return err
	}
	config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if certificate != "-" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	for range 2 {
		if where.Scheme == "https" {
			config.NextProtos = []string{http3.NextProtoH3}
			transport := webtransport.Transport{TLSClientConfig: config, QUICConfig: quicConfig()}
			response, session, err := transport.Dial(ctx, target, nil)
			if session != nil {
				session.CloseWithError(0, "")
			}
			status := 0
			if response != nil {
				status = response.StatusCode
			}
			report("ended", ending(err, fields{"status": status}))
			transport.Close()
			continue
		}
		config.NextProtos = []string{silent}
		connection, err := quic.DialAddr(ctx, where.Host, config, quicConfig())
		if err != nil {
			report("ended", ending(err, fields{}))
			continue
		}
		// For a client the handshake is over before the server has looked at its certificate.
		<-connection.Context().Done()
		resumed := connection.ConnectionState().TLS.DidResume
		report("ended", ending(context.Cause(connection.Context()), fields{"resumed": resumed}))
	}
	return nil
}

// ending adds to a report what an error says: an alert of TLS, or the application's code.
func ending(err error, values fields) fields {
	var transport *quic.TransportError
	var application *quic.ApplicationError
	values["alert"], values["code"] = -1, -1
	if errors.As(err, &transport) && transport.ErrorCode.IsCryptoError() {
		values["alert"] = int(transport.ErrorCode) - 0x100
	}
	if errors.As(err, &application) {
		values["code"] = int(application.ErrorCode)
	}
	values["error"] = fmt.Sprint(err)
	return values
}

// certificateServer listens on two ports, for raw QUIC and for WebTransport, requires certificates that the authorities
// of a file have signed, and reports whom each session is from.
//
// Usage: `webtransport_go certificate-server CERTIFICATE KEY AUTHORITIES`.
func certificateServer(certificate string, key string, authorities string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(authorities)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("no certificate in %s", authorities)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
	}
	raw := config.Clone()
	raw.NextProtos = []string{silent}
	listener, err := quic.ListenAddr("127.0.0.1:0", raw, quicConfig())
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			report("session", whom("quic", connection.ConnectionState().TLS))
		}
	}()
	mux := http.NewServeMux()
	server := webtransport.Server{
		H3:          &http3.Server{TLSConfig: http3.ConfigureTLSConfig(config), QUICConfig: quicConfig(), Handler: mux},
		CheckOrigin: func(*http.Request) bool { return true },
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	mux.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		if _, err := server.Upgrade(response, request); err != nil {
			report("refused", fields{"error": err.Error()})
			return
		}
		report("session", whom("webtransport", *request.TLS))
	})
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	report("listening", fields{
		"quic":         listener.Addr().(*net.UDPAddr).Port,
		"webtransport": socket.LocalAddr().(*net.UDPAddr).Port,
	})
	return server.Serve(socket)
}

func whom(transport string, state tls.ConnectionState) fields {
	names := []string{}
	for _, certificate := range state.PeerCertificates {
		names = append(names, certificate.Subject.CommonName)
	}
	return fields{"transport": transport, "from": strings.Join(names, " < ")}
}
