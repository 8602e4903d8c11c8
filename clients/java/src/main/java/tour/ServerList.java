package tour;

import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;

/** Resolves {@code list:///HOST:PORT,HOST:PORT} to these servers, in this order. */
final class ServerList extends NameResolverProvider {
  @Override
  public NameResolver newNameResolver(URI target, NameResolver.Args args) {
    List<EquivalentAddressGroup> servers = new ArrayList<>();
    for (String server : target.getPath().substring(1).split(",")) {
      int colon = server.lastIndexOf(':');
      int port = Integer.parseInt(server.substring(colon + 1));
      servers.add(
          new EquivalentAddressGroup(new InetSocketAddress(server.substring(0, colon), port)));
    }
    return new NameResolver() {
      @Override
      public String getServiceAuthority() {
        return "localhost";
      }

      @Override
      public void start(Listener2 listener) {
        listener.onResult(
            ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(servers)).build());
      }

      @Override
      public void shutdown() {}
    };
  }

  @Override
  public String getDefaultScheme() {
    return "list";
  }

  @Override
  protected boolean isAvailable() {
    return true;
  }

  @Override
  protected int priority() {
    return 5;
  }
}
