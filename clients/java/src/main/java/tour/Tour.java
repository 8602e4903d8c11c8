package tour;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import larder.cache.v1.CacheServiceGrpc;
import larder.cache.v1.CacheServiceOuterClass.GetRequest;
import larder.cache.v1.CacheServiceOuterClass.IncrementRequest;
import larder.cache.v1.CacheServiceOuterClass.SetRequest;
import rpc.CacheGrpc;
import rpc.Rpc.DumpReq;
import rpc.Rpc.GetReq;
import rpc.Rpc.StoreReq;

/**
 * larder from Java, with grpc-java: each method is one thing that a client meets. The servers are
 * named by the environment; {@code clients/README.md} says how.
 */
public final class Tour {
  private static final String TOKEN = System.getenv("TOUR_TOKEN");
  private static final Duration SOON = Duration.ofSeconds(1);
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> DRY_RUN =
      Metadata.Key.of("dry-run", Metadata.ASCII_STRING_MARSHALLER);

  private final CacheGrpc.CacheBlockingStub cache;
  private final CacheServiceGrpc.CacheServiceBlockingStub faulty;

  private Tour(ManagedChannel channel, ManagedChannel faulty) {
    this.cache = CacheGrpc.newBlockingStub(channel);
    this.faulty = CacheServiceGrpc.newBlockingStub(faulty);
  }

  /** Opens a channel that retries as the service configuration says. */
  private static ManagedChannel connect(String target) throws IOException {
    String serviceConfig = Files.readString(Path.of(System.getenv("TOUR_SERVICE_CONFIG")));
    return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
        .defaultServiceConfig(new Gson().fromJson(serviceConfig, new TypeToken<Map<String, Object>>() {}))
        .build();
  }

  /** Stores a value and reads it back, as an account's token. */
  private void talk() {
    Metadata credential = new Metadata();
    credential.put(AUTHORIZATION, "Bearer " + TOKEN);
    CacheGrpc.CacheBlockingStub mine =
        cache.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(credential));

    mine.withDeadlineAfter(PATIENCE).store(store("gopher", "con").build());
    ByteString value =
        mine.withDeadlineAfter(PATIENCE).get(GetReq.newBuilder().setKey("gopher").build()).getVal();
    check(value.toStringUtf8().equals("con"), "got " + value);
  }

  /** Stores more keys than the account may have, and reads why not. */
  private void quota() throws InvalidProtocolBufferException {
    StoreReq.Builder second = store("second", "v").setAccountToken(TOKEN);
    cache.withDeadlineAfter(PATIENCE).store(second.build());

    StoreReq third = store("third", "v").setAccountToken(TOKEN).build();
    StatusRuntimeException error = errorOf(() -> cache.withDeadlineAfter(PATIENCE).store(third));
    check(error.getStatus().getCode() == Status.Code.FAILED_PRECONDITION, error.toString());
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        check(info.getDomain().equals("larder"), info.toString());
        check(info.getReason().equals("KEY_QUOTA_EXCEEDED"), info.toString());
      } else if (detail.is(QuotaFailure.class)) {
        QuotaFailure failure = detail.unpack(QuotaFailure.class);
        check(failure.getViolations(0).getSubject().contains("tour"), failure.toString());
      }
    }
    check(StatusProto.fromThrowable(error).getDetailsCount() == 2, "two details");
  }

  /** Gives up on a slow server, which then leaves the call undone. */
  private static void deadline() throws IOException {
    ManagedChannel channel = connect(System.getenv("TOUR_SLOW_SERVER"));
    try {
      CacheGrpc.CacheBlockingStub slow = CacheGrpc.newBlockingStub(channel);
      StoreReq late = store("late", "v").setAccountToken(TOKEN).build();
        expect(Status.Code.DEADLINE_EXCEEDED, () -> slow.withDeadlineAfter(SOON).store(late));
      // Nothing later: it was not stored behind the caller's back.
      GetReq get = GetReq.newBuilder().setKey("late").setAccountToken(TOKEN).build();
      expect(Status.Code.NOT_FOUND, () -> slow.withDeadlineAfter(PATIENCE).get(get));
    } finally {
      channel.shutdownNow();
    }
  }

  /** Has a store checked but not carried out. */
  private void dryRun() {
    Metadata dry = new Metadata();
    dry.put(DRY_RUN, "1");
    AtomicReference<Metadata> headers = new AtomicReference<>();
    AtomicReference<Metadata> trailers = new AtomicReference<>();
    CacheGrpc.newBlockingStub(
            ClientInterceptors.intercept(
                cache.getChannel(),
                MetadataUtils.newAttachHeadersInterceptor(dry),
                MetadataUtils.newCaptureMetadataInterceptor(headers, trailers)))
        .withDeadlineAfter(PATIENCE)
        .store(store("gopher", "phercon").setAccountToken(TOKEN).build());
    Metadata echoed = headers.get();
    echoed.merge(trailers.get());
    check("1".equals(echoed.get(DRY_RUN)), "not echoed");

    GetReq get = GetReq.newBuilder().setKey("gopher").setAccountToken(TOKEN).build();
    ByteString value = cache.withDeadlineAfter(PATIENCE).get(get).getVal();
    check(value.toStringUtf8().equals("con"), "stored " + value);
  }

  /** Streams every entry. */
  private void dump() {
    Map<String, String> entries = new HashMap<>();
    cache
        .withDeadlineAfter(PATIENCE)
        .dump(DumpReq.getDefaultInstance())
        .forEachRemaining(item -> entries.put(item.getKey(), item.getVal().toStringUtf8()));
    check(entries.size() == Integer.parseInt(System.getenv("TOUR_ENTRIES")), entries.size() + " entries");
    entries.forEach((key, value) -> check(value.equals("value of " + key), key + " has " + value));
  }

  /** Reads from a server that fails twice, and does not notice. */
  private void retry() {
    GetRequest get = get("unavailable-twice");
    String value = faulty.withDeadlineAfter(PATIENCE).get(get).getHit().getValue().toStringUtf8();
    check(value.equals("value of unavailable-twice"), value);
  }

  /** Is told at once what another attempt would not change, or might do twice. */
  private void once() {
    expect(Status.Code.NOT_FOUND, () -> faulty.withDeadlineAfter(PATIENCE).get(get("not-found")));
    expect(
        Status.Code.FAILED_PRECONDITION,
        () -> faulty.withDeadlineAfter(PATIENCE).get(get("failed-precondition")));
    IncrementRequest increment =
        IncrementRequest.newBuilder()
            .setKey(ByteString.copyFromUtf8("unavailable-twice"))
            .setDelta(1)
            .build();
    expect(
        Status.Code.UNAVAILABLE, () -> faulty.withDeadlineAfter(PATIENCE).increment(increment));
  }

  /** Goes on with the second server when the first one dies. */
  private static void failover() throws IOException {
    NameResolverRegistry.getDefaultRegistry().register(new ServerList());
    ManagedChannel channel = connect("list:///" + System.getenv("TOUR_PAIR"));
    try {
      var pair = CacheServiceGrpc.newBlockingStub(channel);
      pair.withDeadlineAfter(PATIENCE).set(set("before"));
      report("failover", "waiting", "");
      new BufferedReader(new InputStreamReader(System.in)).readLine();
      try {
        pair.withDeadlineAfter(PATIENCE).set(set("after"));
      } catch (StatusRuntimeException error) {
        // So ends a call that meets its connection as it breaks. That is not retried, and a set
        // may be made twice.
        if (error.getStatus().getCode() != Status.Code.UNKNOWN) {
          throw error;
        }
        pair.withDeadlineAfter(PATIENCE).set(set("after"));
      }
    } finally {
      channel.shutdownNow();
    }
  }

  private static StoreReq.Builder store(String key, String value) {
    return StoreReq.newBuilder().setKey(key).setVal(ByteString.copyFromUtf8(value));
  }

  private static GetRequest get(String key) {
    return GetRequest.newBuilder().setKey(ByteString.copyFromUtf8(key)).build();
  }

  private static SetRequest set(String key) {
    return SetRequest.newBuilder().setKey(ByteString.copyFromUtf8(key)).build();
  }

  private static void expect(Status.Code code, Runnable call) {
    StatusRuntimeException error = errorOf(call);
    check(error.getStatus().getCode() == code, "wanted " + code + ", got " + error);
  }

  private static StatusRuntimeException errorOf(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("the call went well");
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }

  private static void report(String behaviour, String outcome, String why) {
    System.out.println(
        new Gson().toJson(Map.of("behaviour", behaviour, "outcome", outcome, "why", why)));
  }

  /** What may throw what a call or a file may throw. */
  private interface Behaviour {
    void run() throws IOException;
  }

  private static void run(String name, Behaviour behaviour) {
    run(name, behaviour, "");
  }

  private static void run(String name, Behaviour behaviour, String note) {
    try {
      behaviour.run();
      report(name, "passed", note);
    } catch (IOException | RuntimeException error) {
      report(name, "failed", error.toString());
    }
  }

  /** Makes the whole tour. */
  public static void main(String[] args) throws IOException {
    ManagedChannel channel = connect(System.getenv("TOUR_SERVER"));
    ManagedChannel faulty = connect(System.getenv("TOUR_FAULTY_SERVER"));
    Tour tour = new Tour(channel, faulty);
    run("talk", tour::talk);
    run("quota", tour::quota);
    run("deadline", Tour::deadline);
    run("dry-run", tour::dryRun);
    run("dump", tour::dump);
    run("retry", tour::retry);
    run("once", tour::once);
    run(
        "failover",
        Tour::failover,
        "a call that meets its connection as it breaks may end with UNKNOWN: the program asks again");
    channel.shutdownNow();
    faulty.shutdownNow();
  }
}
