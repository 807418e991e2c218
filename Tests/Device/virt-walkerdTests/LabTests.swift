import DaemonSupport
import Foundation
import Testing

/// Runs each example of Examples/lab, and compares what comes back, or the message, with the tables of its README.md.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct LabTests {
  /// A row of a table.
  struct Example: Sendable, CustomTestStringConvertible {
    /// The path in Examples/lab.
    let path: String
    let options: String
    /// The message of a wrong example; empty for a right one.
    let message: String

    var directory: String { String(path.prefix { $0 != "/" }) }
    var file: String { String(path.drop { $0 != "/" }.dropFirst()) }
    var testDescription: String { path }
  }

  private static let lab = "\(repository)/Examples/lab"

  static let examples: [Example] = {
    let text = (try? String(contentsOfFile: "\(lab)/README.md", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { row in
      let cells = row.dropFirst(2).dropLast(2).split(separator: " | ").map { cell in
        String(cell.hasPrefix("`") && cell.hasSuffix("`") ? cell.dropFirst().dropLast() : cell)
      }
      return Example(
        path: cells.first ?? "", options: cells.count > 2 ? cells[2] : "",
        message: cells.count > 3 ? cells[3] : "")
    }
  }()
  static let right = examples.filter { $0.directory == "right" }
  static let wrong = examples.filter { $0.directory == "wrong" }

  // MARK: - The tables

  @Test func tablesHaveEachFile() throws {
    var files: [String] = []
    for directory in ["right", "wrong"] {
      files += try FileManager.default.contentsOfDirectory(atPath: "\(Self.lab)/\(directory)")
        .map { "\(directory)/\($0)" }
    }
    #expect(Self.examples.map(\.path).sorted() == files.sorted())
    #expect(Self.right.allSatisfy { $0.message.isEmpty })
    #expect(Self.wrong.allSatisfy { !$0.message.isEmpty })
  }

  /// The comment of a file has the options, unless they are those of each module.
  @Test(arguments: examples) func commentAndTableAgree(on example: Example) throws {
    let command = "virt-walkerd serve "
    let text = try? String(contentsOfFile: "\(Self.lab)/\(example.path)", encoding: .utf8)
    let line = text?.split(separator: "\n").first { $0.contains(command) }
    let options = line.flatMap { line in
      line.firstRange(of: command).map { String(line[$0.upperBound...]) }
    }
    #expect(example.options == options ?? "--module \(example.file)")
  }

  // MARK: - The examples

  @Test(arguments: right) func rightExampleWorks(example: Example) async throws {
    let result = try await run(example, expectsStart: true)
    let bytes = example.file == "module-queue.c" ? "ABC" : "ACD"
    #expect(
      result.output.hasPrefix("\(bytes)\nmistakes: 0\nstopped\n"),
      "\(result.output)\(result.errors)")
    #expect(!result.output.contains("\ncode: "), "\(result.output)")
  }

  @Test(arguments: wrong) func mistakeIsTold(example: Example) async throws {
    let result = try await run(example, expectsStart: example.file != "module-init-unwind.c")
    let isTold = result.output.split(separator: "\n").contains {
      $0.hasPrefix("code: ")
        && (example.message.hasPrefix(example.file)
          ? $0.hasPrefix("code: \(example.message)")
          : $0.contains(example.message))
    }
    #expect(isTold, "\(result.output)\(result.errors)")
  }

  /// Starts the daemon with an example, writes and reads, stops the daemon, and prints its log.
  private func run(_ example: Example, expectsStart: Bool) async throws -> Outcome {
    let name = RunningDaemon.uniqueName()
    let directory = "/tmp/\(name)"
    let start =
      "$virt_walkerd serve --detach --name \(name) --log-file \(directory)/log \(example.options)"
    let result = try await shell(
      """
      mkdir -p \(directory)/tmp && chmod 755 \(directory) && chmod 1777 \(directory)/tmp || exit 99
      cd \(Self.lab)/\(example.directory) || exit 99
      export TMPDIR=\(directory)/tmp
      node=/dev/\(name) tree=/run/\(name)
      if \(start) >/dev/null; then
          { \(stimulus(of: example, in: directory)); } 2>/dev/null
          echo; grep '^mistakes: ' $tree/code
          $virt_walkerd stop --name \(name) && echo stopped
      else
          echo not started
      fi
      cat \(directory)/log; rm -r \(directory)
      """, limit: .seconds(120))
    #expect(
      result.output.contains(expectsStart ? "\nstopped\n" : "not started\n"),
      "\(result.output)\(result.errors)")
    try await expectNothingLeft(of: "/dev/\(name)")
    return result
  }

  /// The lines of shell that use the node.
  private func stimulus(of example: Example, in directory: String) -> String {
    switch example.path {
    case "right/module-ioctl.c":
      """
      cat >\(directory)/ioctl.c <<'END'
      #include <fcntl.h>
      #include <stdio.h>
      #include <sys/ioctl.h>
      int main(int count, char **names)
      {
      	unsigned char bytes[] = "ACD", byte;
      	unsigned int numbers[2];
      	int file = open(names[1], O_RDWR);

      	for (int i = 0; i < 3; i++) {
      		byte = bytes[i];
      		if (ioctl(file, _IOW('w', 1, unsigned char), &byte))
      			return 1;
      		byte = 0;
      		if (ioctl(file, _IOR('w', 2, unsigned char), &byte))
      			return 2;
      		putchar(byte);
      	}
      	return ioctl(file, _IOR('w', 3, numbers), numbers) || numbers[0] != 3 || numbers[1] != 3;
      }
      END
      cc -o \(directory)/ioctl \(directory)/ioctl.c && \(directory)/ioctl $node || echo ioctl fails
      """
    case "right/module-queue.c":
      // A byte that is not read yet holds up the next write.
      "printf ABC >$node & head -c1 $node; head -c1 $node; head -c1 $node; wait"
    case "wrong/length-unchecked.c":
      "echo 'guest strh w0,[0x0b000000] x0=0x1234' >$tree/control"
    case "wrong/module-lock-left-held.c":
      // Each later write waits for ever.
      "printf BC >$node"
    default:
      "printf A >$node; head -c1 $node; printf BC >$node; head -c1 $node; printf D >$node; head -c1 $node"
    }
  }
}
