//! A template's tree. What it calls, and how its blocks nest, is checked here; what a value has, when there is one.

use serde_json::Value;

use super::{
    functions::Function,
    lex::{Piece, Token, pieces},
};

/// Blocks and parentheses inside of each other: each takes some of the stack.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Show(Pipeline),
    If { when: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { of: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// `$k, $v := first | second`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    /// At most two, and two of `range` only.
    pub(super) variables: Vec<String>,
    /// They are there already.
    pub(super) assigns: bool,
    /// At least one.
    pub(super) commands: Vec<Command>,
}

/// A value, or what is called with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) first: Term,
    pub(super) arguments: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    Dot,
    Variable(String),
    Literal(Value),
    Function(Function),
    Group(Box<Pipeline>),
    Fields(Box<Term>, Vec<String>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut blocks = Blocks { pieces: pieces(text)?.into_iter(), depth: 0 };
    match blocks.block()? {
        (nodes, Ender::Text) => Ok(nodes),
        (_, Ender::End) => Err("{{end}} ends nothing".to_owned()),
        (_, Ender::Else(_)) => Err("{{else}} is of no {{if}}, {{range}} or {{with}}".to_owned()),
    }
}

struct Blocks {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

/// What a block ended with.
enum Ender {
    Text,
    End,
    /// And what stands behind the word: `if .X`.
    Else(Vec<Token>),
}

impl Blocks {
    fn block(&mut self) -> Result<(Vec<Node>, Ender), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            match tokens.split_first() {
                None => return Err("{{}} says nothing".to_owned()),
                Some((Token::Word(word), rest)) => match word.as_str() {
                    "end" if rest.is_empty() => return Ok((nodes, Ender::End)),
                    "else" => return Ok((nodes, Ender::Else(rest.to_vec()))),
                    "if" | "with" | "range" => nodes.push(self.control(word, rest)?),
                    _ => nodes.push(Node::Show(pipeline(&tokens)?)),
                },
                Some(_) => nodes.push(Node::Show(pipeline(&tokens)?)),
            }
        }
        Ok((nodes, Ender::Text))
    }

    fn control(&mut self, word: &str, of: &[Token]) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} blocks are inside of each other"));
        }
        let missing = || format!("{{{{end}}}} is missing: of {{{{{word}}}}}");
        let pipeline = Terms::of(of).pipeline(word == "range")?;
        let (then, ender) = self.block()?;
        let otherwise = match ender {
            Ender::End => Vec::new(),
            Ender::Text => return Err(missing()),
            Ender::Else(rest) => match rest.split_first() {
                None => match self.block()? {
                    (nodes, Ender::End) => nodes,
                    (_, Ender::Text) => return Err(missing()),
                    (_, Ender::Else(_)) => return Err(format!("{{{{else}}}} follows the {{{{else}}}} of {word}")),
                },
                // Its {{end}} ends both.
                Some((Token::Word(word), of)) if word == "if" || word == "with" => vec![self.control(word, of)?],
                Some(_) => return Err("behind else stands nothing, or if, or with".to_owned()),
            },
        };
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If { when: pipeline, then, otherwise },
            "with" => Node::With { of: pipeline, then, otherwise },
            _ => Node::Range { over: pipeline, body: then, otherwise },
        })
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    Terms::of(tokens).pipeline(false)
}

/// The tokens of one action that are still to be read.
struct Terms<'a> {
    rest: &'a [Token],
    depth: usize,
}

impl<'a> Terms<'a> {
    fn of(tokens: &'a [Token]) -> Self {
        Self { rest: tokens, depth: 0 }
    }

    fn take(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn pipeline(mut self, of_range: bool) -> Result<Pipeline, String> {
        let (variables, assigns) = match self.rest {
            [Token::Variable(v), sets @ (Token::Declare | Token::Assign), rest @ ..] => {
                self.rest = rest;
                (vec![v.clone()], *sets == Token::Assign)
            }
            [
                Token::Variable(k),
                Token::Comma,
                Token::Variable(v),
                sets @ (Token::Declare | Token::Assign),
                rest @ ..,
            ] if of_range => {
                self.rest = rest;
                (vec![k.clone(), v.clone()], *sets == Token::Assign)
            }
            _ => (Vec::new(), false),
        };
        if variables.iter().any(String::is_empty) {
            return Err("$ is where the template began: it cannot be set".to_owned());
        }
        let commands = self.commands()?;
        match self.rest {
            [] => Ok(Pipeline { variables, assigns, commands }),
            _ => Err(") closes nothing".to_owned()),
        }
    }

    /// Up to the end, or to a parenthesis that closes.
    fn commands(&mut self) -> Result<Vec<Command>, String> {
        let mut commands = Vec::new();
        let mut words: Vec<Term> = Vec::new();
        loop {
            let ends = match self.rest.first() {
                None | Some(Token::Close) => true,
                Some(Token::Pipe) => {
                    self.take();
                    false
                }
                Some(_) => {
                    words.push(self.term()?);
                    continue;
                }
            };
            let mut words = std::mem::take(&mut words).into_iter();
            let first = words.next().ok_or("a value or a function is missing")?;
            commands.push(Command { first, arguments: words.collect() });
            if ends {
                return commands.iter().flat_map(|c| &c.arguments).try_for_each(is_value).map(|()| commands);
            }
        }
    }

    fn term(&mut self) -> Result<Term, String> {
        let term = match self.take() {
            Some(Token::Dot) => Term::Dot,
            Some(Token::Field(name)) => {
                let mut names = vec![name.clone()];
                self.subs(&mut names);
                return Ok(Term::Fields(Box::new(Term::Dot), names));
            }
            Some(Token::Variable(name)) => Term::Variable(name.clone()),
            Some(Token::Text(text)) => Term::Literal(Value::String(text.clone())),
            Some(Token::Number(number)) => Term::Literal(Value::from(*number)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Term::Literal(Value::Bool(true)),
                "false" => Term::Literal(Value::Bool(false)),
                "nil" => Term::Literal(Value::Null),
                name => Term::Function(name.parse()?),
            },
            Some(Token::Open) => Term::Group(Box::new(self.group()?)),
            Some(Token::Comma) => return Err("a comma stands between the two variables of range only".to_owned()),
            Some(Token::Declare | Token::Assign) => return Err("a $variable is missing before = or :=".to_owned()),
            Some(Token::Sub(_) | Token::Close | Token::Pipe) | None => return Err("a value is missing".to_owned()),
        };
        let mut names = Vec::new();
        self.subs(&mut names);
        Ok(if names.is_empty() { term } else { Term::Fields(Box::new(term), names) })
    }

    fn subs(&mut self, names: &mut Vec<String>) {
        while let Some(Token::Sub(name)) = self.rest.first() {
            names.push(name.clone());
            self.take();
        }
    }

    fn group(&mut self) -> Result<Pipeline, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} parentheses are inside of each other"));
        }
        let commands = self.commands()?;
        self.take().ok_or(") is missing")?;
        self.depth -= 1;
        Ok(Pipeline { variables: Vec::new(), assigns: false, commands })
    }
}

fn is_value(argument: &Term) -> Result<(), String> {
    match argument {
        Term::Function(function) => Err(format!("{function} is called as an argument: put it in parentheses")),
        Term::Dot | Term::Variable(_) | Term::Literal(_) | Term::Group(_) | Term::Fields(..) => Ok(()),
    }
}
