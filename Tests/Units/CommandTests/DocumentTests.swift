import DaemonSupport
import Foundation
import SystemPackage
import Testing

/// The statements of the documents, compared with the files that they describe.
@Suite struct DocumentTests {
  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: repository.appending(path).string, encoding: .utf8)
  }

  /// docs/file-operations.md gives a reason for each row that differs from the module.
  @Test func everyDifferenceIsExplained() throws {
    let table = try text("Tests/FileOperations/expected.txt")
    let document = try text("docs/file-operations.md")
    let rows = table.split(separator: "\n").filter { !$0.hasPrefix("#") }
      .map { $0.split(separator: /\s\s+/) }.filter { $0.count == 5 }.dropFirst()
    #expect(rows.count == 108)
    #expect(document.contains("all \(rows.count) answers"))
    for row in rows where row[2...].contains(where: { $0 != row[1] }) {
      // The first part of a row such as "write 0: value" is the call.
      let call = row[0].prefix { $0 != ":" && $0 != "," }
      #expect(
        document.contains("`\(call)`") || document.contains("`\(row[0])`"),
        "\(row[0]) differs, and docs/file-operations.md does not say why")
    }
  }

  /// docs/README.md has a link to each document.
  @Test func indexListsEveryDocument() throws {
    let index = try text("docs/README.md")
    let documents = try FileManager.default.contentsOfDirectory(
      atPath: repository.appending("docs").string
    ).filter { $0.hasSuffix(".md") && $0 != "README.md" }
    #expect(documents.count >= 10)
    for document in documents {
      #expect(index.contains("](\(document))"), "\(document) is not in docs/README.md")
    }
  }

  private var recordings: [String] {
    get throws {
      try FileManager.default.contentsOfDirectory(
        atPath: repository.appending("Tests/Recordings/6.1").string)
    }
  }

  @Test func recordingsThatAreNamedExist() throws {
    let recordings = try Set(recordings)
    let document = try text("docs/what-the-kernel-does.md")
    let names = document.matches(
      of: /`((?:bytes|explain|facts|guest|host|ipa|granule|random)-[a-z0-9-]+)`/)
    #expect(names.count >= 20)
    for name in names.map(\.output.1) {
      let exists = recordings.contains("\(name).txt")
      #expect(exists, "\(name) is not in Tests/Recordings/6.1")
    }
  }

  /// Each line of each recording is in the language of docs/scenario.md: a head, a machine, and steps with their
  /// observations.
  @Test func recordingsAreInTheLanguage() throws {
    let observation =
      #/
      \ \ (?: run\ (?: retired | hung | error\ E[A-Z]+ | exception\ esr_el1=[0-9a-f]+(?:\ far_el1=[0-9a-f]{16})?
              | mmio\ (?:read|write)\ 0x[0-9a-f]+\ len\ [1248](?:\ data\ 0x[0-9a-f]+)? )
            (?:\ pc\ [+]\d+)? \ x0\ 0x[0-9a-f]+ (?:\ then\ 0x[0-9a-f]+)?
          | result\ (?: 0 | E[A-Z]+ )
          | value\ 0x[0-9a-f]{8}
          | dirty\ 0x[0-9a-f]+(?:\ pages\ \d+)?
          | abort\ esr=[0-9a-f]{8}\ far=[0-9a-f]{16}\ hpfar=[0-9a-f]{10}
          | tlbi\ (?: all | ipa=[0-9a-f]{10}\ level=[0-3] )
          | log\ .+
          | leaf\ 0x[0-9a-f]+ (?:\ level\ [0-3]\ [0-9a-f]{16}(?:\ @[A-Z]+)?\ counts(?:\ \d+)+ (?:\ ->)? ){1,2} )
      /#
    var steps = 0
    for name in try recordings {
      let lines = try text("Tests/Recordings/6.1/\(name)").split(separator: "\n")
      #expect(lines[0].hasPrefix("# Recorded on Linux "), "\(name)")
      let first = lines.first { !$0.hasPrefix("#") }
      #expect(first?.hasPrefix("machine ") == true, "\(name)")
      var isSeen = true
      for line in lines where !line.hasPrefix("#") {
        if line.hasPrefix("guest ") || line.hasPrefix("host ") {
          #expect(isSeen, "\(name): nothing was seen before: \(line)")
          isSeen = false
          steps += 1
        } else if line.hasPrefix("  ") {
          isSeen = isSeen || line.hasPrefix("  run ") || line.hasPrefix("  result ")
          #expect(line.wholeMatch(of: observation) != nil, "\(name): \(line)")
        } else {
          #expect(line == first, "\(name): \(line)")
        }
      }
      #expect(isSeen, "\(name) ends without an observation")
    }
    #expect(steps >= 10_000)
  }
}
