import NIOCore
import NIOHTTP1

/// The checks that a request comes from a page of this server.
///
/// A page of another site can send requests to this computer, and can make its own name mean 127.0.0.1 (DNS rebinding). The header Host then has
/// that name, and Origin and Sec-Fetch-Site tell the other site.
enum RequestCheck {
  /// The reason why a request is refused; nil if it is not.
  ///
  /// - Parameters:
  ///   - head: The request.
  ///   - port: The port of the server.
  static func refusal(of head: HTTPRequestHead, port: Int) -> String? {
    let hosts = head.headers[canonicalForm: "Host"]
    guard hosts.count == 1, isOwn(host: String(hosts[0]), port: port) else {
      return "Host is not a number address of this server"
    }
    let origins = head.headers[canonicalForm: "Origin"]
    guard origins.allSatisfy({ $0 == "http://\(hosts[0])" }) else {
      return "the request comes from a page of another site"
    }
    let sites = head.headers[canonicalForm: "Sec-Fetch-Site"]
    guard sites.allSatisfy({ $0 == "same-origin" || $0 == "none" }) else {
      return "the request comes from a page of another site"
    }
    guard head.method == .POST else { return nil }
    // A form of another site has no such header, and a script of another site would have to ask first.
    guard origins.count == 1, head.headers[canonicalForm: "X-Virt-Walker"] == ["control"] else {
      return "a request that controls the machine needs the headers Origin and X-Virt-Walker"
    }
    return nil
  }

  /// Whether a value of Host is an IPv4 address, or localhost, with the port of the server. A name can be another site's.
  static func isOwn(host: String, port: Int) -> Bool {
    let parts = host.split(separator: ":", omittingEmptySubsequences: false)
    let hasPort = parts.count == 2 ? Int(parts[1]) == port : parts.count == 1 && port == 80
    guard hasPort else { return false }
    return parts[0] == "localhost"
      || (try? SocketAddress(ipAddress: String(parts[0]), port: port)) != nil
  }
}
