import Hashing
import Scenarios

/// A page in one HTML file: its style, its script and its data are inside.
public struct Page {
  private let content: PageContent
  private let title: String
  /// The part of a live page; nil for a file.
  var live: Live?

  /// The number of the content and the buttons of a live page.
  struct Live {
    let epoch: Int
    let controls: [LiveControl]

    /// The data of the script of a live page.
    var json: String {
      var json = JSONText()
      json.append("{\"epoch\":\(epoch),\"controls\":")
      json.appendList(controls) { $0.append([$1.label, $1.line]) }
      json.append("}")
      return json.text
    }
  }

  /// A page with a content.
  ///
  /// - Parameters:
  ///   - content: The machines and their steps.
  ///   - title: The title.
  public init(_ content: PageContent, title: String) {
    self.content = content
    self.title = title
  }

  /// A script or a style, and its hash in a Content-Security-Policy.
  private struct Part {
    let text: String
    let hash: String

    init(_ bytes: [UInt8]) {
      text = String(decoding: bytes, as: UTF8.self)
      hash = "'sha256-\(InputHash.base64SHA256(bytes))'"
    }
  }

  private static let style = Part(PackageResources.page_css)
  private static let script = Part(PackageResources.page_js)
  private static let liveScript = Part(PackageResources.page_js + PackageResources.live_js)

  /// The text of the file.
  public var html: String {
    let script = live == nil ? Self.script : Self.liveScript
    let connections = live == nil ? "" : " connect-src 'self';"
    return Self.filled([
      "policy":
        "default-src 'none'; script-src \(script.hash);\(connections) style-src \(Self.style.hash); base-uri 'none'; form-action 'none'",
      "title": Self.escaped(title),
      "style": Self.style.text,
      "script": script.text,
      "data": content.json,
      // The file of a scenario has no word of a live page.
      "live": live.map {
        "<script type=\"application/json\" id=\"live\">\($0.json)</script>\n"
      } ?? "",
    ])
  }

  /// The template with texts in place of the names in `{{` and `}}`.
  private static func filled(_ texts: [String: String]) -> String {
    var page = ""
    var rest = String(decoding: PackageResources.page_html, as: UTF8.self)[...]
    while let part = rest.firstRange(of: "{{") {
      page += rest[..<part.lowerBound]
      rest = rest[part.upperBound...]
      guard let end = rest.firstRange(of: "}}"), let text = texts[String(rest[..<end.lowerBound])]
      else { preconditionFailure("the template of the page has a part without a text") }
      page += text
      rest = rest[end.upperBound...]
    }
    return page + rest
  }

  private static func escaped(_ text: String) -> String {
    text.printable.map {
      ["&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;"][$0] ?? String($0)
    }.joined()
  }
}
