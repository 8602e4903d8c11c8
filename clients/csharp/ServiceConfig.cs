// What clients/service-config.json says of retries (gRFC A6), for a client that has no gRPC to
// read it.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.Serialization;

namespace Larder
{
    [DataContract]
    public sealed class RetryPolicy
    {
        [DataMember(Name = "maxAttempts")]
        public int MaxAttempts { get; set; }

        [DataMember(Name = "initialBackoff")]
        private string initialBackoff = "0s";

        [DataMember(Name = "maxBackoff")]
        private string maxBackoff = "0s";

        [DataMember(Name = "backoffMultiplier")]
        private double multiplier = 1;

        [DataMember(Name = "retryableStatusCodes")]
        private List<string> codes = new List<string>();

        public bool IsRetryable(string code) =>
            codes.Any(it => string.Equals(it, code, StringComparison.OrdinalIgnoreCase));

        /// <summary>How long to wait after so many attempts: 20 % more or less, so that clients do not
        /// come back together.</summary>
        public TimeSpan Backoff(int attempts, Random random)
        {
            double seconds = Seconds(initialBackoff) * Math.Pow(multiplier, attempts - 1);
            seconds = Math.Min(seconds, Seconds(maxBackoff));
            return TimeSpan.FromSeconds(seconds * (0.8 + 0.4 * random.NextDouble()));
        }

        private static double Seconds(string duration) =>
            double.Parse(duration.TrimEnd('s'), CultureInfo.InvariantCulture);
    }

    [DataContract]
    public sealed class ServiceConfig
    {
        [DataMember(Name = "methodConfig")]
        private List<MethodConfig> methods = new List<MethodConfig>();

        public static ServiceConfig Load(string file) => Json.Read<ServiceConfig>(File.ReadAllBytes(file));

        /// <summary>The policy of a method; null if it is to be tried once.</summary>
        public RetryPolicy RetryPolicyOf(string service, string method) =>
            methods?.FirstOrDefault(it => it.Names.Any(name => name.Is(service, method)))?.Policy;

        [DataContract]
        private sealed class MethodConfig
        {
            [DataMember(Name = "name")]
            public List<MethodName> Names { get; set; }

            [DataMember(Name = "retryPolicy")]
            public RetryPolicy Policy { get; set; }
        }

        [DataContract]
        private sealed class MethodName
        {
            [DataMember(Name = "service")]
            private string service = "";

            [DataMember(Name = "method")]
            private string method = "";

            public bool Is(string wantedService, string wantedMethod) =>
                service == wantedService && (string.IsNullOrEmpty(method) || method == wantedMethod);
        }
    }
}
