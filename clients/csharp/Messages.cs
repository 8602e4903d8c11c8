// The messages of larder.cache.v1 and rpc.Cache that this client sends, as JSON has them
// (protobuf's JSON mapping): bytes are base64, 64-bit integers are strings, and what is not
// set is left out.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;

namespace Larder
{
    [DataContract]
    public sealed class Key
    {
        [DataMember(Name = "key", EmitDefaultValue = false)]
        public string Base64 { get; set; }

        public static Key Of(byte[] key) => new Key { Base64 = Convert.ToBase64String(key) };
    }

    [DataContract]
    public sealed class SetRequest
    {
        [DataMember(Name = "key")]
        public string Key { get; set; }

        [DataMember(Name = "value", EmitDefaultValue = false)]
        public string Value { get; set; }

        /// <summary>Seconds, as in "1.5s".</summary>
        [DataMember(Name = "ttl", EmitDefaultValue = false)]
        public string Ttl { get; set; }
    }

    [DataContract]
    public sealed class IncrementRequest
    {
        [DataMember(Name = "key")]
        public string Key { get; set; }

        [DataMember(Name = "delta")]
        public string Delta { get; set; }
    }

    [DataContract]
    public sealed class GetResponse
    {
        [DataMember(Name = "hit")]
        public Hit Hit { get; set; }
    }

    [DataContract]
    public sealed class Hit
    {
        [DataMember(Name = "value")]
        public string Base64 { get; set; }

        /// <summary>An empty value stands in no JSON.</summary>
        public byte[] Value => Convert.FromBase64String(Base64 ?? "");
    }

    [DataContract]
    public sealed class Nothing
    {
    }

    /// <summary>The talk's StoreReq, GetReq and DumpReq.</summary>
    [DataContract]
    public sealed class TalkRequest
    {
        [DataMember(Name = "key", EmitDefaultValue = false)]
        public string Key { get; set; }

        [DataMember(Name = "val", EmitDefaultValue = false)]
        public string Base64 { get; set; }

        [DataMember(Name = "accountToken", EmitDefaultValue = false)]
        public string AccountToken { get; set; }
    }

    /// <summary>The talk's StoreResp, GetResp and DumpItem.</summary>
    [DataContract]
    public sealed class TalkReply
    {
        [DataMember(Name = "key")]
        public string Key { get; set; }

        [DataMember(Name = "val")]
        public string Base64 { get; set; }

        public byte[] Val => Convert.FromBase64String(Base64 ?? "");
    }

    /// <summary>Connect's error; the last frame of a stream has one under its name.</summary>
    [DataContract]
    internal sealed class ErrorReply
    {
        [DataMember(Name = "code")]
        public string Code { get; set; }

        [DataMember(Name = "message")]
        public string Message { get; set; }

        [DataMember(Name = "details")]
        public List<Detail> Details { get; set; }
    }

    [DataContract]
    internal sealed class EndOfStream
    {
        [DataMember(Name = "error")]
        public ErrorReply Error { get; set; }
    }

    [DataContract]
    internal sealed class Detail
    {
        [DataMember(Name = "type")]
        public string Type { get; set; }

        [DataMember(Name = "debug")]
        public DetailFields Fields { get; set; }
    }

    /// <summary>The fields of google.rpc.ErrorInfo and QuotaFailure together.</summary>
    [DataContract]
    public sealed class DetailFields
    {
        [DataMember(Name = "domain")]
        public string Domain { get; set; }

        [DataMember(Name = "reason")]
        public string Reason { get; set; }

        [DataMember(Name = "metadata")]
        public Dictionary<string, string> Metadata { get; set; }

        [DataMember(Name = "violations")]
        public List<Violation> Violations { get; set; }
    }

    [DataContract]
    public sealed class Violation
    {
        [DataMember(Name = "subject")]
        public string Subject { get; set; }

        [DataMember(Name = "description")]
        public string Description { get; set; }
    }

    internal static class Json
    {
        private static readonly DataContractJsonSerializerSettings Settings =
            new DataContractJsonSerializerSettings { UseSimpleDictionaryFormat = true };

        public static byte[] Write<T>(T message)
        {
            using (var stream = new MemoryStream())
            {
                new DataContractJsonSerializer(typeof(T), Settings).WriteObject(stream, message);
                return stream.ToArray();
            }
        }

        public static T Read<T>(byte[] json)
        {
            using (var stream = new MemoryStream(json))
            {
                return (T)new DataContractJsonSerializer(typeof(T), Settings).ReadObject(stream);
            }
        }
    }
}
