// larder from C# without gRPC: JSON over HTTP/1.1 with HttpClient, as the Connect protocol has it.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Threading;
using System.Threading.Tasks;

namespace Larder
{
    /// <summary>A call failed. Reason is one of docs/errors.md.</summary>
    public sealed class LarderException : Exception
    {
        private readonly List<Detail> details;

        /// <summary>Connect's name of the status, as in "not_found".</summary>
        public string Code { get; }

        public DetailFields Info => DetailOf("google.rpc.ErrorInfo");

        public string Reason => Info?.Reason ?? "";

        public DetailFields QuotaFailure => DetailOf("google.rpc.QuotaFailure");

        internal LarderException(string code, string message, Exception cause = null)
            : base($"{code}: {message}", cause)
        {
            Code = code;
            details = new List<Detail>();
        }

        internal LarderException(ErrorReply error)
            : this(error.Code, error.Message)
        {
            details = error.Details ?? details;
        }

        private DetailFields DetailOf(string type) => details.FirstOrDefault(it => it.Type == type)?.Fields;
    }

    /// <summary>What belongs to one call.</summary>
    public sealed class CallOptions
    {
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(10);

        public string Token { get; set; }

        public bool DryRun { get; set; }
    }

    /// <summary>A client of one server, or of several of which it uses the first that answers. One
    /// for the whole program; calls may be made from all threads.</summary>
    public sealed class LarderClient : IDisposable
    {
        public const string Cache = "larder.cache.v1.CacheService";
        public const string Talk = "rpc.Cache";

        private readonly HttpClient http;
        private readonly string[] servers;
        private readonly ServiceConfig config;
        private readonly Random random = new Random();
        private int current;

        public LarderClient(IEnumerable<string> servers, ServiceConfig config)
        {
            this.servers = servers.ToArray();
            this.config = config;
            // .NET Framework and Mono open two connections to a server unless told otherwise.
            ServicePointManager.DefaultConnectionLimit = 64;
            http = new HttpClient(new HttpClientHandler { UseProxy = false });
            http.DefaultRequestHeaders.ExpectContinue = false;
            // Each call has a time of its own.
            http.Timeout = Timeout.InfiniteTimeSpan;
        }

        public void Dispose() => http.Dispose();

        public async Task<byte[]> GetAsync(byte[] key, CallOptions options = null)
        {
            var reply = await CallAsync<Key, GetResponse>(Cache, "Get", Key.Of(key), options);
            return reply.Hit?.Value;
        }

        public Task SetAsync(byte[] key, byte[] value, CallOptions options = null)
        {
            var request = new SetRequest
            {
                Key = Convert.ToBase64String(key),
                Value = Convert.ToBase64String(value),
            };
            return CallAsync<SetRequest, Nothing>(Cache, "Set", request, options);
        }

        /// <summary>A unary call. It is repeated as the service configuration says of its method.</summary>
        public async Task<TReply> CallAsync<TRequest, TReply>(
            string service, string method, TRequest request, CallOptions options = null,
            Action<HttpResponseHeaders> onHeaders = null)
        {
            options = options ?? new CallOptions();
            var body = Json.Write(request);
            var policy = config.RetryPolicyOf(service, method);
            var deadline = DateTime.UtcNow + options.Timeout;
            for (int attempts = 1; ; attempts++)
            {
                int server = Volatile.Read(ref current);
                try
                {
                    var left = deadline - DateTime.UtcNow;
                    var reply = await AttemptAsync(server, $"{service}/{method}", body, options, left, onHeaders);
                    return Json.Read<TReply>(reply);
                }
                catch (LarderException e)
                {
                    if (policy == null || attempts >= policy.MaxAttempts || !policy.IsRetryable(e.Code))
                    {
                        throw;
                    }
                    TimeSpan backoff;
                    lock (random)
                    {
                        backoff = policy.Backoff(attempts, random);
                    }
                    if (DateTime.UtcNow + backoff >= deadline)
                    {
                        throw;
                    }
                    // Whoever comes first goes on to the next server, and the others with it.
                    Interlocked.CompareExchange(ref current, (server + 1) % servers.Length, server);
                    await Task.Delay(backoff);
                }
            }
        }

        private async Task<byte[]> AttemptAsync(
            int server, string path, byte[] body, CallOptions options, TimeSpan left,
            Action<HttpResponseHeaders> onHeaders)
        {
            using (var timer = new CancellationTokenSource(Positive(left)))
            using (var request = Request(server, path, body, "application/json", options))
            {
                // The server gives up when the caller does.
                request.Headers.Add("connect-timeout-ms", Milliseconds(left));
                try
                {
                    using (var response = await http.SendAsync(request, timer.Token))
                    {
                        var reply = await response.Content.ReadAsByteArrayAsync();
                        if (response.StatusCode != HttpStatusCode.OK)
                        {
                            throw ErrorOf(response, reply);
                        }
                        onHeaders?.Invoke(response.Headers);
                        return reply;
                    }
                }
                catch (Exception e) when (!(e is LarderException))
                {
                    throw Lost(e, timer.IsCancellationRequested);
                }
            }
        }

        /// <summary>A call that answers with a stream, of which each message is given away as it
        /// comes. It is made once.</summary>
        public async Task StreamAsync<TRequest, TReply>(
            string service, string method, TRequest request, Action<TReply> onMessage,
            CallOptions options = null)
        {
            options = options ?? new CallOptions();
            var body = Enveloped(Json.Write(request));
            using (var timer = new CancellationTokenSource(Positive(options.Timeout)))
            using (var message = Request(current, $"{service}/{method}", body, "application/connect+json", options))
            {
                message.Headers.Add("connect-timeout-ms", Milliseconds(options.Timeout));
                try
                {
                    using (var response = await http.SendAsync(
                        message, HttpCompletionOption.ResponseHeadersRead, timer.Token))
                    using (timer.Token.Register(response.Dispose))
                    using (var stream = await response.Content.ReadAsStreamAsync())
                    {
                        if (response.StatusCode != HttpStatusCode.OK)
                        {
                            throw ErrorOf(response, await response.Content.ReadAsByteArrayAsync());
                        }
                        await ReadMessagesAsync(stream, onMessage);
                    }
                }
                catch (Exception e) when (!(e is LarderException))
                {
                    throw Lost(e, timer.IsCancellationRequested);
                }
            }
        }

        /// <summary>Each message stands after a byte of flags and its length; the last one says how
        /// the call ended.</summary>
        private static async Task ReadMessagesAsync<TReply>(Stream stream, Action<TReply> onMessage)
        {
            const byte endStream = 2;
            var prefix = new byte[5];
            while (true)
            {
                await ReadWholeAsync(stream, prefix);
                int length = prefix[1] << 24 | prefix[2] << 16 | prefix[3] << 8 | prefix[4];
                // The largest entry is smaller.
                if (length < 0 || length > 64 << 20)
                {
                    throw new InvalidDataException($"a message of {(uint)length} bytes");
                }
                var json = new byte[length];
                await ReadWholeAsync(stream, json);
                if ((prefix[0] & endStream) == 0)
                {
                    onMessage(Json.Read<TReply>(json));
                    continue;
                }
                var error = Json.Read<EndOfStream>(json).Error;
                if (error != null)
                {
                    throw new LarderException(error);
                }
                return;
            }
        }

        private static async Task ReadWholeAsync(Stream stream, byte[] into)
        {
            for (int at = 0; at < into.Length;)
            {
                int count = await stream.ReadAsync(into, at, into.Length - at);
                if (count == 0)
                {
                    throw new EndOfStreamException("the stream ended before its last message");
                }
                at += count;
            }
        }

        private static byte[] Enveloped(byte[] json)
        {
            int length = json.Length;
            var prefix = new byte[] { 0, (byte)(length >> 24), (byte)(length >> 16), (byte)(length >> 8), (byte)length };
            return prefix.Concat(json).ToArray();
        }

        private HttpRequestMessage Request(
            int server, string path, byte[] body, string contentType, CallOptions options)
        {
            var request = new HttpRequestMessage(HttpMethod.Post, $"http://{servers[server]}/{path}")
            {
                Content = new ByteArrayContent(body),
            };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue(contentType);
            request.Headers.Add("connect-protocol-version", "1");
            if (options.Token != null)
            {
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", options.Token);
            }
            if (options.DryRun)
            {
                request.Headers.Add("dry-run", "1");
            }
            return request;
        }

        private static TimeSpan Positive(TimeSpan left) =>
            left > TimeSpan.FromMilliseconds(1) ? left : TimeSpan.FromMilliseconds(1);

        private static string Milliseconds(TimeSpan left) => ((long)Positive(left).TotalMilliseconds).ToString();

        /// <summary>What no answer came to. It may have been carried out: only calls that may be
        /// repeated are.</summary>
        private static LarderException Lost(Exception e, bool isLate) => isLate
            ? new LarderException("deadline_exceeded", "the deadline passed", e)
            : new LarderException("unavailable", e.GetBaseException().Message, e);

        private static LarderException ErrorOf(HttpResponseMessage response, byte[] body)
        {
            if (response.Content.Headers.ContentType?.MediaType == "application/json")
            {
                return new LarderException(Json.Read<ErrorReply>(body));
            }
            // Not from larder, but from something on the way.
            int status = (int)response.StatusCode;
            bool isTemporary = status == 429 || (status >= 502 && status <= 504);
            return new LarderException(isTemporary ? "unavailable" : "unknown", $"HTTP status {status}");
        }
    }
}
