// larder from C#, with JSON over HTTP: each method is one thing that a client meets.
// The servers are named by the environment; clients/README.md says how.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading.Tasks;

namespace Larder
{
    internal static class Tour
    {
        private static readonly string Token = Variable("TOUR_TOKEN");

        private static string Variable(string name) =>
            Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException($"no {name}");

        private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

        private static string Text(byte[] value) => Encoding.UTF8.GetString(value);

        private static LarderClient Connect(string servers)
        {
            var config = ServiceConfig.Load(Variable("TOUR_SERVICE_CONFIG"));
            return new LarderClient(servers.Split(','), config);
        }

        private static Task Store(LarderClient cache, string key, string val, CallOptions options)
        {
            var request = new TalkRequest { Key = key, Base64 = Convert.ToBase64String(Bytes(val)) };
            return cache.CallAsync<TalkRequest, Nothing>(LarderClient.Talk, "Store", request, options);
        }

        private static async Task<string> Get(LarderClient cache, string key, CallOptions options)
        {
            var request = new TalkRequest { Key = key };
            var reply = await cache.CallAsync<TalkRequest, TalkReply>(LarderClient.Talk, "Get", request, options);
            return Text(reply.Val);
        }

        // Stores a value and reads it back, as an account's token.
        private static async Task Talk(LarderClient cache)
        {
            var options = new CallOptions { Token = Token };
            await Store(cache, "gopher", "con", options);
            string val = await Get(cache, "gopher", options);
            Check(val == "con", $"got {val}");
        }

        // Stores more keys than the account may have, and reads why not.
        private static async Task Quota(LarderClient cache)
        {
            var options = new CallOptions { Token = Token };
            await Store(cache, "second", "v", options);
            var error = await ErrorOf(Store(cache, "third", "v", options));
            Check(error.Code == "failed_precondition", error.Message);
            Check(error.Info?.Domain == "larder" && error.Reason == "KEY_QUOTA_EXCEEDED", error.Reason);
            var violation = error.QuotaFailure?.Violations.Single();
            Check(violation != null && violation.Subject.Contains("tour"), "no such QuotaFailure");
        }

        // Gives up on a slow server, which then leaves the call undone.
        private static async Task Deadline()
        {
            using (var slow = Connect(Variable("TOUR_SLOW_SERVER")))
            {
                var soon = new CallOptions { Token = Token, Timeout = TimeSpan.FromSeconds(1) };
                var error = await ErrorOf(Store(slow, "late", "v", soon));
                Check(error.Code == "deadline_exceeded", error.Message);
                // Nothing later: it was not stored behind the caller's back.
                error = await ErrorOf(Get(slow, "late", new CallOptions { Token = Token }));
                Check(error.Code == "not_found", error.Message);
            }
        }

        // Has a store checked but not carried out.
        private static async Task DryRun(LarderClient cache)
        {
            string echoed = null;
            var request = new TalkRequest { Key = "gopher", Base64 = Convert.ToBase64String(Bytes("phercon")) };
            var options = new CallOptions { Token = Token, DryRun = true };
            await cache.CallAsync<TalkRequest, Nothing>(LarderClient.Talk, "Store", request, options, headers =>
            {
                echoed = headers.TryGetValues("dry-run", out var values) ? values.Single() : null;
            });
            Check(echoed == "1", $"echoed {echoed}");
            string val = await Get(cache, "gopher", new CallOptions { Token = Token });
            Check(val == "con", $"stored {val}");
        }

        // Streams every entry.
        private static async Task Dump(LarderClient cache)
        {
            var keys = new HashSet<string>();
            var options = new CallOptions { Timeout = TimeSpan.FromSeconds(30) };
            await cache.StreamAsync<TalkRequest, TalkReply>(LarderClient.Talk, "Dump", new TalkRequest(), item =>
            {
                Check(Text(item.Val) == $"value of {item.Key}", $"{item.Key} has {Text(item.Val)}");
                keys.Add(item.Key);
            }, options);
            Check(keys.Count == int.Parse(Variable("TOUR_ENTRIES")), $"{keys.Count} entries");
        }

        // Reads from a server that fails twice, and does not notice.
        private static async Task Retry(LarderClient faulty)
        {
            var value = await faulty.GetAsync(Bytes("unavailable-twice"));
            Check(Text(value) == "value of unavailable-twice", Text(value));
        }

        // Is told at once what another attempt would not change, or might do twice.
        private static async Task Once(LarderClient faulty)
        {
            var error = await ErrorOf(faulty.GetAsync(Bytes("not-found")));
            Check(error.Code == "not_found", error.Message);
            error = await ErrorOf(faulty.GetAsync(Bytes("failed-precondition")));
            Check(error.Code == "failed_precondition", error.Message);
            var key = Convert.ToBase64String(Bytes("unavailable-twice"));
            var increment = new IncrementRequest { Key = key, Delta = "1" };
            error = await ErrorOf(faulty.CallAsync<IncrementRequest, Nothing>(
                LarderClient.Cache, "Increment", increment));
            Check(error.Code == "unavailable", error.Message);
        }

        // Goes on with the second server when the first one dies.
        private static async Task Failover()
        {
            using (var pair = Connect(Variable("TOUR_PAIR")))
            {
                await pair.SetAsync(Bytes("before"), Bytes("v"));
                Report("failover", "waiting");
                Console.ReadLine();
                await pair.SetAsync(Bytes("after"), Bytes("v"));
            }
        }

        // The error that a call ends with.
        private static async Task<LarderException> ErrorOf(Task call)
        {
            try
            {
                await call;
            }
            catch (LarderException e)
            {
                return e;
            }
            throw new InvalidOperationException("the call went well");
        }

        private static void Check(bool holds, string otherwise)
        {
            if (!holds)
            {
                throw new InvalidOperationException(otherwise);
            }
        }

        private static void Report(string behaviour, string outcome, string why = "")
        {
            why = why.Replace("\\", "\\\\").Replace("\"", "\\\"").Replace("\n", " ");
            Console.WriteLine($"{{\"behaviour\":\"{behaviour}\",\"outcome\":\"{outcome}\",\"why\":\"{why}\"}}");
        }

        private static async Task RunAsync(string behaviour, Func<Task> run)
        {
            try
            {
                await run();
                Report(behaviour, "passed");
            }
            catch (Exception e)
            {
                Report(behaviour, "failed", e.ToString());
            }
        }

        private static void Main() => TourAsync().GetAwaiter().GetResult();

        private static async Task TourAsync()
        {
            using (var cache = Connect(Variable("TOUR_SERVER")))
            using (var faulty = Connect(Variable("TOUR_FAULTY_JSON_SERVER")))
            {
                await RunAsync("talk", () => Talk(cache));
                await RunAsync("quota", () => Quota(cache));
                await RunAsync("deadline", Deadline);
                await RunAsync("dry-run", () => DryRun(cache));
                await RunAsync("dump", () => Dump(cache));
                await RunAsync("retry", () => Retry(faulty));
                await RunAsync("once", () => Once(faulty));
                await RunAsync("failover", Failover);
            }
        }
    }
}
